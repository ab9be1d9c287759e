"""What the ways of going back have in common: a recurrence over segments, and the object that runs it.

Axes: T segments, B rows of the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Tensors = tuple[Tensor, ...]

Step = Callable[[int, Tensors, Tensors, Tensors], Tensors]
"""(index t, shared, what segment t is given, state) -> state. Pure: the same arguments give the same state, dropout included."""


@dataclass(frozen=True)
class Recurrence:
    """A loop over segments, as data.

    Attributes:
        step: computes one segment.
        parameters: the leaf tensors that `step` uses without being given them.
        shared: tensors that all segments are given alike.
        segments: tensors (T, ...); segment t is given row t of each.
        state: the initial state, tensors (B, ...).
        lengths: the segments of each batch row, (B,); a row's state is constant from there on.
    """

    step: Step
    parameters: Tensors
    shared: Tensors
    segments: Tensors
    state: Tensors
    lengths: tuple[int, ...]

    @property
    def total(self) -> int:
        """T, the segments of the longest row."""
        return max(self.lengths, default=0)

    def run(self, start: int, stop: int, state: Tensors) -> Tensors:
        """The state after segments start .. stop - 1, in whatever gradient mode is on."""
        for index in range(start, stop):
            state = self.step(index, self.shared, tuple(x[index] for x in self.segments), state)
        return state


class Backprop(Protocol):
    """A way for gradients to go back over the segments of a recurrence."""

    def __call__(self, recurrence: Recurrence) -> Tensors:
        """The final state; its backward gives every tensor of the recurrence its gradient, as the kind defines it."""
