"""Backpropagation through the last segments only."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rmaat.backprop.base import Recurrence, Tensors


@dataclass(frozen=True)
class Truncated:
    """Cut each row's gradient before the row's last segments: cheap, and biased.

    A row's gradient does not depend on the other rows of its batch. The activations in memory are
    those of the segments from the earliest cut to the end of the longest row.

    Attributes:
        segments: the number of segments k that the gradient goes through, >= 1.
    """

    recomputes: ClassVar[bool] = False

    segments: int

    def __call__(self, recurrence: Recurrence) -> Tensors:
        """Return the final state and the histories; before a row's cut they are constants."""
        # A row's state is cut before segment `length - k`. Until the earliest cut of all rows no
        # activation is needed. Rows without a segment have no cut.
        cuts = [max(length - self.segments, 0) for length in recurrence.lengths]
        pairs = zip(cuts, recurrence.lengths, strict=True)
        start = min((cut for cut, length in pairs if length), default=0)
        device = recurrence.state[0].device
        state, records = recurrence.state, []
        with torch.no_grad():
            for following in recurrence.states(0, start, state):
                state = following
                records.append(recurrence.record(state))
        for index in range(start, recurrence.total):
            # Rows have different lengths, so each is detached by itself where its own cut is.
            if index and index in cuts:
                cut_B = torch.tensor([index == cut for cut in cuts], device=device)
                state = tuple(torch.where(_broadcastable(cut_B, x), x.detach(), x) for x in state)
            state = recurrence.run(index, index + 1, state)
            records.append(recurrence.record(state))
        # The loop went on with gradients for rows that are not cut yet: a loss on the history must
        # not reach their states from before the cut.
        index_T = torch.arange(len(records), device=device)
        before_TB = index_T[:, None] < torch.tensor(cuts, device=device)
        stacked = recurrence.stack(records)
        histories = (torch.where(_broadcastable(before_TB, x), x.detach(), x) for x in stacked)
        return (*state, *histories)


def _broadcastable(mask: Tensor, x: Tensor) -> Tensor:
    """Return the mask of the leading axes of `x` with an axis of 1 for each of the others."""
    return mask.view(*mask.shape, *[1] * (x.dim() - mask.dim()))
