"""Backpropagation with PyTorch's activation checkpointing, one segment at a time."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch.utils.checkpoint import checkpoint

from rmaat.backprop.base import Recurrence, Tensors


@dataclass(frozen=True)
class Checkpoint:
    """`torch.utils.checkpoint` on each segment: exact, and every segment is computed twice.

    This is what a user would write without this package. Unlike `Replay`, autograd goes through the
    segments itself, so it holds a graph that grows with their number.
    """

    recomputes: ClassVar[bool] = True

    def __call__(self, recurrence: Recurrence) -> Tensors:
        """Return the final state and the histories; autograd holds the states between segments."""
        if recurrence.total < 2:
            return recurrence.run_all()
        state, records = recurrence.state, []
        for index in range(recurrence.total):
            # The step draws no random numbers, so there is no generator's state to restore.
            run = partial(recurrence.run, index, index + 1)
            state = checkpoint(run, state, use_reentrant=False, preserve_rng_state=False)
            records.append(recurrence.record(state))
        return (*state, *recurrence.stack(records))
