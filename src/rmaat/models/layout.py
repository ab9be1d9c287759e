"""Permutations that place the memory tokens before, behind or around a segment's tokens.

Axes: B batch, N positions, D width.
"""

import torch
from torch import Tensor


def moving_permutations(first: int, count: int, length_B: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Return the permutation that moves positions behind each row's tokens, and its inverse.

    It moves positions first .. first + count - 1 behind the `length_B` positions that follow them.
    Padding stays last, so the positions in use stay together.

    Args:
        first: the first position to move.
        count: the number of positions to move.
        length_B: (B,) int64, the number of tokens that each row's moved positions pass.
        total: N, the number of all positions.

    Returns:
        Two (B, N) int64 index tensors for `permuted`: the permutation and its inverse.
    """
    position_N, length_B1 = torch.arange(total, device=length_B.device), length_B[:, None]
    # Positions before the moved ones, and the row's padding, stay where they are.
    affected_BN = (position_N >= first) & (position_N < first + count + length_B1)
    # New order: tokens come from `count` positions later, moved positions from before the tokens.
    moving_BN = torch.where(position_N < first + length_B1, position_N + count, position_N - length_B1)
    # Old order: moved positions come from behind the tokens, tokens from `count` positions earlier.
    inverse_BN = torch.where(position_N < first + count, position_N + length_B1, position_N - count)
    return moving_BN.where(affected_BN, position_N), inverse_BN.where(affected_BN, position_N)


def permuted(x_BND: Tensor, order_BN: Tensor) -> Tensor:
    """Return the positions of `x_BND` in the given order, (B, N', D) for an order (B, N')."""
    return x_BND.gather(1, order_BN[..., None].expand(-1, -1, x_BND.shape[-1]))
