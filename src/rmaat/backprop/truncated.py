"""Backpropagation through the last segments only."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rmaat.backprop.base import Recurrence, Tensors


@dataclass(frozen=True)
class Truncated:
    """The gradient reaches back over each row's own last `segments` segments and is cut there: cheap, and biased.

    What a row gets does not depend on the other rows of its batch; memory is that of the segments from the shortest row's
    cut to the longest row's end.
    """

    segments: int

    def __call__(self, recurrence: Recurrence) -> Tensors:
        """The final state and what is watched; of a row's segments before its last ones, values without a gradient."""
        cuts = [max(length - self.segments, 0) for length in recurrence.lengths]
        start = min((cut for cut, length in zip(cuts, recurrence.lengths, strict=True) if length), default=0)
        device = recurrence.state[0].device
        state, seen = recurrence.state, []
        with torch.no_grad():
            for after in recurrence.states(0, start, state):
                state = after
                seen.append(recurrence.seen(state))
        for index in range(start, recurrence.total):
            if index and index in cuts:
                cut_B = torch.tensor([index == cut for cut in cuts], device=device)
                state = tuple(torch.where(_beside(cut_B, x), x.detach(), x) for x in state)
            state = recurrence.run(index, index + 1, state)
            seen.append(recurrence.seen(state))
        before_TB = torch.arange(len(seen), device=device)[:, None] < torch.tensor(cuts, device=device)
        watched = (torch.where(_beside(before_TB, x), x.detach(), x) for x in recurrence.stack(seen))
        return (*state, *watched)


def _beside(chosen: Tensor, x: Tensor) -> Tensor:
    return chosen.view(*chosen.shape, *[1] * (x.dim() - chosen.dim()))
