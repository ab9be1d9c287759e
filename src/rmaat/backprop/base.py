"""What the ways of going back have in common: a recurrence over segments, and the object that runs it.

Axes: T segments, B rows of the batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]

Step = Callable[[int, Tensors, Tensors, Tensors, Tensors], Tensors]
"""(index t, parameters, shared, what segment t is given, state) -> state.

Pure: the same arguments give the same state, dropout included, and gradients reach nothing but the arguments.
"""


@dataclass(frozen=True)
class Recurrence:
    """A loop over segments, as data.

    Attributes:
        step: computes one segment.
        parameters: the tensors that the layers compute with, trained or frozen.
        shared: other tensors that all segments are given alike.
        segments: tensors (T, ...); segment t is given row t of each.
        state: the initial state, tensors (B, ...).
        lengths: the segments of each batch row, (B,); a row's state is constant from there on.
        watched: places in the state whose value after every segment is asked for, not only after the last.
    """

    step: Step
    parameters: Tensors
    shared: Tensors
    segments: Tensors
    state: Tensors
    lengths: tuple[int, ...]
    watched: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        """T, the segments of the longest row."""
        return max(self.lengths, default=0)

    def states(self, start: int, stop: int, state: Tensors) -> Iterator[Tensors]:
        """The state after each of segments start .. stop - 1, in whatever gradient mode is on."""
        for index in range(start, stop):
            state = self.step(index, self.parameters, self.shared, tuple(x[index] for x in self.segments), state)
            yield state

    def run(self, start: int, stop: int, state: Tensors) -> Tensors:
        """The state after segment stop - 1, or `state` where there is none."""
        for after in self.states(start, stop, state):
            state = after
        return state

    def run_all(self) -> Tensors:
        """The final state, then what is watched, as `Backprop` returns them."""
        state, seen = self.state, []
        for after in self.states(0, self.total, self.state):
            state = after
            seen.append(self.seen(state))
        return (*state, *self.stack(seen))

    def seen(self, state: Tensors) -> Tensors:
        """What is watched of a state."""
        return tuple(state[place] for place in self.watched)

    def stack(self, seen: Sequence[Tensors]) -> Tensors:
        """What was seen of some states, as one tensor (len(seen), B, ...) for each that is watched."""
        if not seen:
            return tuple(x.new_empty(0, *x.shape) for x in self.seen(self.state))
        return tuple(torch.stack(of_place) for of_place in zip(*seen, strict=True))


class Backprop(Protocol):
    """A way for gradients to go back over the segments of a recurrence."""

    def __call__(self, recurrence: Recurrence) -> Tensors:
        """The final state, then each watched tensor after every segment, (T, B, ...).

        Their backward gives every tensor of the recurrence its gradient, as the kind defines it.
        """
