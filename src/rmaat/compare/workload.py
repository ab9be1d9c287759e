"""What a method is once built: a model and a step."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rmaat.compare.shapes import NUM_LABELS, VOCAB_SIZE, Shape

SEED = 2
"""Of dropout in every step, so that two methods drop the same values."""


@dataclass(frozen=True)
class Workload:
    """A model, and one training step on it without the optimiser's part.

    Attributes:
        model: its parameters' gradients are what the step leaves.
        step: (tokens of one sequence) -> forward and backward pass, with fresh gradients.
        loss: (tokens) -> the loss that the step goes back from, without gradients; None where a package keeps it to itself.
    """

    model: nn.Module
    step: Callable[[int], None]
    loss: Callable[[int], float] | None = None

    @property
    def parameters(self) -> int:
        """The number of trained numbers."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)


def workload(
    model: nn.Module,
    shape: Shape,
    device: str,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    forward_backward: Callable[[Tensor, Tensor], None] | None = None,
    extra: int = 0,
    id_type: torch.dtype = torch.int64,
) -> Workload:
    """A workload whose step draws ids (B, tokens + extra), clears gradients, seeds dropout and goes back from the loss.

    Args:
        model: moved to the device, in training mode.
        shape: for the batch.
        device: 'cpu' or 'cuda'.
        loss: (ids, labels (B,) int64) -> the loss.
        forward_backward: (ids, labels) -> None, in place of it, for a package that goes back by itself.
        extra: ids beyond the tokens that are read, for a model that predicts the next.
        id_type: of the ids, the smallest that the model reads.
    """
    assert (loss is None) != (forward_backward is None)
    model.to(device).train()
    labels_B = (torch.arange(shape.batch) % NUM_LABELS).to(device)

    def begin(tokens: int) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        size = (shape.batch, tokens + extra)
        ids_BN = torch.randint(0, VOCAB_SIZE, size, generator=generator, dtype=id_type).to(device)
        torch.manual_seed(SEED)
        return ids_BN

    def step(tokens: int) -> None:
        model.zero_grad(set_to_none=True)
        ids_BN = begin(tokens)
        if loss is None:
            assert forward_backward is not None
            forward_backward(ids_BN, labels_B)
        else:
            loss(ids_BN, labels_B).backward()

    @torch.no_grad()
    def value(tokens: int) -> float:
        assert loss is not None
        return loss(begin(tokens), labels_B).item()

    return Workload(model, step, None if loss is None else value)


def autocast(shape: Shape, device: str) -> torch.autocast:
    """The precision that the shape asks for."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=shape.bf16)
