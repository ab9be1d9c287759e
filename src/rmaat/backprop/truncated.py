"""Backpropagation through the last segments only."""

from dataclasses import dataclass

import torch

from rmaat.backprop.base import Recurrence, Tensors


@dataclass(frozen=True)
class Truncated:
    """The gradient reaches back over each row's own last `segments` segments and is cut there: cheap, and biased.

    What a row gets does not depend on the other rows of its batch; memory is that of the segments from the shortest row's
    cut to the longest row's end.
    """

    segments: int

    def __call__(self, recurrence: Recurrence) -> Tensors:
        """The final state, with the graph of the last segments only."""
        cuts = [max(length - self.segments, 0) for length in recurrence.lengths]
        start = min((cut for cut, length in zip(cuts, recurrence.lengths, strict=True) if length), default=0)
        state = recurrence.state
        if start:
            with torch.no_grad():
                state = recurrence.run(0, start, state)
        for index in range(start, recurrence.total):
            if index and index in cuts:
                cut_B = torch.tensor([index == cut for cut in cuts], device=state[0].device)
                state = tuple(torch.where(cut_B.view(-1, *[1] * (x.dim() - 1)), x.detach(), x) for x in state)
            state = recurrence.run(index, index + 1, state)
        return state
