"""Full backpropagation through time."""

from dataclasses import dataclass

from rmaat.backprop.base import Recurrence, Tensors


@dataclass(frozen=True)
class Full:
    """Ordinary autograd over all segments: the exact gradient, fastest, in memory that grows with the segments."""

    def __call__(self, recurrence: Recurrence) -> Tensors:
        """The final state and what is watched, every segment's activations kept for the backward pass."""
        return recurrence.run_all()
