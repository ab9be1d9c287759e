"""Where memory stands among the tokens that the layers see. Axes: B batch, N positions, D width."""

import torch
from torch import Tensor


def moved_behind(first: int, count: int, length_B: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Return the order that moves positions first .. first + count - 1 behind the row's `length_B` positions after them.

    Behind the row's own tokens, so that the positions in use stay together and padding comes last.

    Args:
        first, count: the positions to move.
        length_B: (B,) int64, how many positions they are moved over.
        total: N, all positions.

    Returns:
        Two (B, N) int64 for `rearranged`: the order of the new positions, and the one that restores the old positions.
    """
    place_N, length_B1 = torch.arange(total, device=length_B.device), length_B[:, None]
    concerned_BN = (place_N >= first) & (place_N < first + count + length_B1)
    # The new positions take the tokens, then what was moved; restored positions take what was moved, then the tokens.
    moved_BN = torch.where(place_N < first + length_B1, place_N + count, place_N - length_B1)
    restored_BN = torch.where(place_N < first + count, place_N + length_B1, place_N - count)
    return moved_BN.where(concerned_BN, place_N), restored_BN.where(concerned_BN, place_N)


def rearranged(x_BND: Tensor, order_BN: Tensor) -> Tensor:
    """Return the positions of `x_BND` in that order, (B, N', D) for an order (B, N')."""
    return x_BND.gather(1, order_BN[..., None].expand(-1, -1, x_BND.shape[-1]))
