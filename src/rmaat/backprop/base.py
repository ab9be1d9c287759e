"""A recurrence over segments, and the protocol of the objects that run it.

Axes: T segments, B rows of the batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

Tensors = tuple[Tensor, ...]

Step = Callable[[int, Tensors, Tensors, Tensors, Tensors], Tensors]
"""(index t, parameters, shared, inputs of segment t, state) -> state.

A step is pure: equal arguments give an equal state, dropout included, and gradients reach nothing
but the arguments.
"""


@dataclass(frozen=True)
class Recurrence:
    """A loop over segments, as data.

    Attributes:
        step: computes one segment.
        parameters: the tensors that the layers compute with, trained or frozen.
        shared: other tensors that are inputs of every segment.
        segments: tensors (T, ...); row t of each is an input of segment t.
        state: the initial state, tensors (B, ...).
        lengths: the number of segments of each batch row, (B,). The step leaves a row's state as it
            is after the row's last segment.
        history: indices of the state tensors whose value after every segment is returned too.
    """

    step: Step
    parameters: Tensors
    shared: Tensors
    segments: Tensors
    state: Tensors
    lengths: tuple[int, ...]
    history: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """T, the number of segments of the longest row."""
        return max(self.lengths, default=0)

    @property
    def inputs(self) -> tuple[Tensors, Tensors, Tensors, Tensors]:
        """All tensors that a gradient may reach: parameters, shared, segments, state."""
        return self.parameters, self.shared, self.segments, self.state

    def states(self, start: int, stop: int, state: Tensors) -> Iterator[Tensors]:
        """Yield the state after each of segments start .. stop - 1.

        Gradients are recorded if the caller has them on.
        """
        for index in range(start, stop):
            segment = tuple(x[index] for x in self.segments)
            state = self.step(index, self.parameters, self.shared, segment, state)
            yield state

    def run(self, start: int, stop: int, state: Tensors) -> Tensors:
        """Return the state after segment stop - 1, or `state` if there is no segment to run."""
        for following in self.states(start, stop, state):
            state = following
        return state

    def run_all(self) -> Tensors:
        """Return what a `Backprop` returns, by an ordinary loop over all segments."""
        state, records = self.state, []
        for following in self.states(0, self.total, self.state):
            state = following
            records.append(self.record(state))
        return (*state, *self.stack(records))

    def record(self, state: Tensors) -> Tensors:
        """Return the tensors of a state that `history` names."""
        return tuple(state[index] for index in self.history)

    def stack(self, records: Sequence[Tensors]) -> Tensors:
        """Return the records of successive states as one tensor (len(records), B, ...) each."""
        if not records:
            return tuple(x.new_empty(0, *x.shape) for x in self.record(self.state))
        return tuple(torch.stack(tensors) for tensors in zip(*records, strict=True))


class Backprop(Protocol):
    """A way for gradients to go back over the segments of a recurrence.

    An object of any class with these two members can be assigned to a model's `backprop`.
    """

    @property
    def recomputes(self) -> bool:
        """Whether segments are computed a second time in the backward pass.

        A model then refuses layers that would not give the same result again. A sequence of one
        segment must not be recomputed: that would save no memory.
        """

    def __call__(self, recurrence: Recurrence) -> Tensors:
        """Return the final state, then the history of each tensor in `history`, (T, B, ...).

        The backward pass of the result gives every tensor in `recurrence.inputs` its gradient.
        """


def split(flat: tuple[T, ...], sizes: Sequence[int]) -> list[tuple[T, ...]]:
    """Return consecutive groups of `flat`, of these sizes."""
    groups, start = [], 0
    for size in sizes:
        groups.append(flat[start : start + size])
        start += size
    return groups
