"""Full backpropagation through time."""

from dataclasses import dataclass
from typing import ClassVar

from rmaat.backprop.base import Recurrence, Tensors


@dataclass(frozen=True)
class Full:
    """Ordinary autograd over all segments: exact and fastest; memory grows with the segments."""

    recomputes: ClassVar[bool] = False

    def __call__(self, recurrence: Recurrence) -> Tensors:
        """Return the final state and the histories; autograd holds all segments' activations."""
        return recurrence.run_all()
