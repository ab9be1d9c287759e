"""Sums weighted by exp(-scale * distance), in linear time and memory.

Axes: N positions, m features, C positions of one chunk, K = N / C chunks, H heads. An axis 1
belongs to a factor that is alike along it.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from rmaat.attention.precision import at_least_float32, no_autocast


def reference_decayed_sum(z: Tensor, scale: float) -> Tensor:
    """Return E z with the N x N matrix E_ij = exp(-scale |i - j|) [P]; (..., N, m) -> (..., N, m)."""
    position_N = torch.arange(z.shape[-2], dtype=z.dtype, device=z.device)
    distance_NN = (position_N[:, None] - position_N).abs()
    return torch.exp(-scale * distance_NN) @ z


def reference_relative_positions(basis: Tensor, scale: float) -> Tensor:
    """Return R = M^T (M E M^T) as written [A]; (H, m, N) -> (H, N, m)."""
    return basis.mT @ (basis @ reference_decayed_sum(basis.mT, scale))


CHUNK = 32
"""Positions that one matrix product sums; longer inputs are summed by chunks, then over chunks."""


def in_chunks(x: Tensor, size: int) -> Tensor:
    """Return x (..., N, m) as chunks of `size` positions, (..., K, size, m), the last one filled up with zeros."""
    missing = -x.shape[-2] % size
    # Compiled code would treat each number as one that may be padding, even without any.
    return (pad(x, (0, 0, 0, missing)) if missing else x).unflatten(-2, (-1, size))


def sum_before(z: Tensor, rate: Tensor) -> Tensor:
    """Return y_i = sum_{j < i} exp(-rate (i - 1 - j)) z_j, by chunks and then over the chunks' ends.

    Args:
        z: (..., N, m).
        rate: (..., 1, 1), decay per position, for all leading axes of z or some of them.

    Returns:
        (..., N, m).
    """
    n = z.shape[-2]
    size = min(n, CHUNK)
    steps = torch.arange(size, device=z.device, dtype=z.dtype)
    distance_CC = steps[:, None] - 1 - steps
    before_CC = torch.exp(-rate * distance_CC.clamp_min(0)).tril(-1)
    if n <= CHUNK:
        return before_CC @ z
    z_KCm = in_chunks(z, CHUNK)
    to_end_1C = torch.exp(-rate * steps.flip(0)).unsqueeze(-3)
    ends_Km = (to_end_1C @ z_KCm).squeeze(-2)
    carry_K1m = sum_before(ends_Km, rate * CHUNK).unsqueeze(-2)
    from_start_C1 = torch.exp(-rate * steps[:, None]).unsqueeze(-3)
    y_KCm = before_CC.unsqueeze(-3) @ z_KCm + from_start_C1 * carry_K1m
    return y_KCm.flatten(-3, -2)[..., :n, :]


def decayed_sum(z: Tensor, scale: float) -> Tensor:
    """Return y_i = sum_j exp(-scale |i - j|) z_j, the product E z of RMAAT's distance matrix [P], without E.

    Args:
        z: (..., N, m), floating point; float16 and bfloat16 are summed in float32.
        scale: decay per position, >= 0; 0 sums all positions alike.

    Returns:
        (..., N, m), the dtype of z. Time and memory are O(N m).

    Raises:
        ValueError: for a negative scale or fewer than two axes.
    """
    if scale < 0:
        raise ValueError(f"decayed_sum: scale must be >= 0, not {scale}")
    if z.dim() < 2:
        raise ValueError(f"decayed_sum: z must be (..., N, m), not of shape {tuple(z.shape)}")
    with no_autocast(z):
        x = at_least_float32(z)
        rate_11 = x.new_full((1, 1), scale)
        neighbours = sum_before(x, rate_11) + sum_before(x.flip(-2), rate_11).flip(-2)
        return (x + torch.exp(-rate_11) * neighbours).to(z.dtype)


def relative_positions(basis: Tensor, scale: float) -> Tensor:
    """Return R = M^T (M E M^T), relative positions before the feature map [A: W_rel = M^T, D = M P M^T].

    Args:
        basis: M, (H, m, N), one m x N matrix a head.
        scale: decay of E_ij = exp(-scale |i - j|) [P], >= 0.

    Returns:
        R, (H, N, m), in at least float32.
    """
    with no_autocast(basis):
        basis_HmN = at_least_float32(basis)
        basis_HNm = basis_HmN.mT
        return basis_HNm @ (basis_HmN @ decayed_sum(basis_HNm, scale))
