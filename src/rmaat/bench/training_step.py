"""One training step of a model, without the optimiser's part. B is the batch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rmaat.bench.shape import NUM_LABELS, VOCAB_SIZE, Shape

SEED = 2
"""Seed of dropout in every step, so that two methods drop the same values."""


@dataclass(frozen=True)
class TrainingStep:
    """A model, and a step that leaves fresh gradients in its parameters.

    Attributes:
        model: in training mode, on the device.
        shape: batch and precision.
        device: 'cpu' or 'cuda'.
        forward: (ids (B, tokens + extra), labels (B,) int64) -> the loss, or None from a package
            that runs the backward pass itself.
        extra: ids beyond the tokens, for a model that predicts the next token.
        id_type: of the ids, the smallest that the model reads.
    """

    model: nn.Module
    shape: Shape
    device: str
    forward: Callable[[Tensor, Tensor], Tensor | None]
    extra: int = 0
    id_type: torch.dtype = torch.int64

    def __call__(self, tokens: int) -> None:
        """Run the forward and the backward pass of sequences of so many tokens."""
        self.model.zero_grad(set_to_none=True)
        loss = self._compute_loss(tokens)
        if loss is not None:
            loss.backward()

    @torch.no_grad()
    def loss(self, tokens: int) -> float:
        """Return the loss that a step differentiates, without gradients."""
        loss = self._compute_loss(tokens)
        assert loss is not None, "only a package that runs the backward pass has no loss"
        return loss.item()

    def _compute_loss(self, tokens: int) -> Tensor | None:
        size = (self.shape.batch, tokens + self.extra)
        generator = torch.Generator().manual_seed(1)
        ids_BN = torch.randint(VOCAB_SIZE, size, generator=generator, dtype=self.id_type)
        labels_B = torch.arange(self.shape.batch) % NUM_LABELS
        ids_BN, labels_B = ids_BN.to(self.device), labels_B.to(self.device)
        torch.manual_seed(SEED)
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.shape.bf16):
            return self.forward(ids_BN, labels_B)
