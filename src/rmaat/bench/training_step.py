"""One training step of a model, without the optimiser's part. B is the batch."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rmaat.bench.shape import NUM_LABELS, VOCAB_SIZE, Shape

SEED = 2
"""Seed of dropout in every step, so that two methods drop the same values."""


class TrainingStep:
    """A model in training mode, and a step that leaves fresh gradients in its parameters.

    Args:
        model: moved to the device.
        shape: batch and precision.
        device: 'cpu' or 'cuda'.
        forward: (ids (B, tokens + extra), labels (B,) int64) -> the loss, or None from a package
            that runs the backward pass itself.
        extra: ids beyond the tokens, for a model that predicts the next token.
        id_type: of the ids, the smallest that the model reads.
    """

    def __init__(
        self,
        model: nn.Module,
        shape: Shape,
        device: str,
        forward: Callable[[Tensor, Tensor], Tensor | None],
        extra: int = 0,
        id_type: torch.dtype = torch.int64,
    ) -> None:
        self.model = model.to(device).train()
        self._shape, self._device, self._extra, self._id_type = shape, device, extra, id_type
        self._forward_model = forward

    @property
    def parameters(self) -> int:
        """The number of trained numbers."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def __call__(self, tokens: int) -> None:
        """Run the forward and the backward pass of sequences of so many tokens."""
        self.model.zero_grad(set_to_none=True)
        loss = self._forward(tokens)
        if loss is not None:
            loss.backward()

    @torch.no_grad()
    def loss(self, tokens: int) -> float:
        """Return the loss that a step differentiates, without gradients."""
        loss = self._forward(tokens)
        assert loss is not None, "the package returns its loss"
        return loss.item()

    def _forward(self, tokens: int) -> Tensor | None:
        size = (self._shape.batch, tokens + self._extra)
        generator = torch.Generator().manual_seed(1)
        ids_BN = torch.randint(VOCAB_SIZE, size, generator=generator, dtype=self._id_type)
        labels_B = torch.arange(self._shape.batch) % NUM_LABELS
        ids_BN, labels_B = ids_BN.to(self._device), labels_B.to(self._device)
        torch.manual_seed(SEED)
        with torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._shape.bf16):
            return self._forward_model(ids_BN, labels_B)
