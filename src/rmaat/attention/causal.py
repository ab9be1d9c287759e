"""Causal sums: each position reads the positions up to its own, in pieces of any length.

A causal segment has M memory positions that are read, then S tokens, then M memory positions that
are written. Their indices are 0 .. 2 M + S - 1, whatever the number of tokens in use. A segment is
computed as a whole, or in pieces of one or more tokens. Each piece passes its sums to the next one,
so a token costs the same at every place of a text.

Axes: B batch, R rows with indices of their own (B, or 1 if all rows have the same), H heads, N
positions of a piece, C positions of a block, m features of queries and keys, e columns of values.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]

BLOCK = 128
"""Positions that are computed at once, in O(BLOCK^2)."""


@dataclass(frozen=True)
class CausalPositions:
    """The places of a piece's positions in their segment.

    Attributes:
        index: (R, N) int64, ascending.
        mask: (B, N) bool, True at the positions in use; others write nothing.
        tokens: the positions of the piece that are tokens; the others are memory.
    """

    index: Tensor
    mask: Tensor
    tokens: slice

    @property
    def is_token(self) -> Tensor:
        """(N,) bool."""
        place_N = torch.arange(self.index.shape[1], device=self.index.device)
        return (place_N >= self.tokens.start) & (place_N < self.tokens.stop)

    def block(self, start: int, stop: int) -> "CausalPositions":
        """Return positions start .. stop - 1."""
        first, last = (min(max(x, start), stop) - start for x in (self.tokens.start, self.tokens.stop))
        return CausalPositions(self.index[:, start:stop], self.mask[:, start:stop], slice(first, last))


def reference_causal_sums(q: Tensor, k: Tensor, v: Tensor, positions: CausalPositions, rate: Tensor | None) -> Tensor:
    """Return sum_j D_ij (q_i . k_j) v_j over j <= i with the N x N matrix D; see `causal_sums`."""
    return (q @ k.mT * _weights(positions, rate)) @ v


def empty_sums(batch: int, shape: tuple[int, int, int], decays: bool, like: Tensor) -> Tensors:
    """Return what `causal_sums` carries at the beginning of a segment.

    Args:
        batch: B.
        shape: H, m, e.
        decays: whether there is a decay.
        like: gives dtype and device.
    """
    sums_BHme = like.new_zeros(batch, *shape)
    if not decays:
        return (sums_BHme,)
    return sums_BHme, sums_BHme, sums_BHme, torch.zeros(batch, dtype=torch.int64, device=like.device)


def causal_sums(
    q: Tensor, k: Tensor, v: Tensor, positions: CausalPositions, rate: Tensor | None, carried: Tensors
) -> tuple[Tensor, Tensors]:
    """Return sum_j D_ij (q_i . k_j) v_j over all j <= i of the segment, and the sums for the next piece.

    D_ij = exp(-rate (i - j)) between tokens, by their indices; it is 1 if i or j is memory, and
    without decay.

    Args:
        q, k: (B, H, N, m).
        v: (B, H, N, e). At positions that are not in use the rows of k or those of v are 0.
        positions: those of the piece.
        rate: (H,), the decay of each head per position, or None.
        carried: the result of the piece before, or `empty_sums`. Without decay the sum of all
            k_j v_j^T, (B, H, m, e). With decay those of memory, of tokens, and of tokens as seen
            from the row's last token, whose index (B,) is the fourth.

    Returns:
        (B, H, N, e), and the tensors to carry, in O(N BLOCK).
    """
    reads = []
    for start in range(0, k.shape[2], BLOCK):
        stop = min(start + BLOCK, k.shape[2])
        block = positions.block(start, stop)
        parts = q[:, :, start:stop], k[:, :, start:stop], v[:, :, start:stop]
        read_BHCe, carried = _plain(*parts, block, carried) if rate is None else _decayed(*parts, block, rate, carried)
        reads.append(read_BHCe)
    return torch.cat(reads, 2), carried


def _plain(q: Tensor, k: Tensor, v: Tensor, positions: CausalPositions, carried: Tensors) -> tuple[Tensor, Tensors]:
    (sums_BHme,) = carried
    read_BHCe = q @ sums_BHme + (q @ k.mT * _weights(positions, None)) @ v
    return read_BHCe, (sums_BHme + k.mT @ v,)


def _decayed(
    q: Tensor, k: Tensor, v: Tensor, positions: CausalPositions, rate: Tensor, carried: Tensors
) -> tuple[Tensor, Tensors]:
    memory_BHme, tokens_BHme, near_BHme, last_B = carried
    token_C1 = positions.is_token[:, None]
    rate_H11 = rate[:, None, None]
    # A token reads memory as it is, and tokens before the block as seen from the last of them.
    passed_RC = (positions.index - last_B[:, None]).clamp_min(0).to(rate.dtype)
    seen_BHC1 = torch.exp(-rate_H11 * passed_RC[:, None, :, None])
    before_BHCe = q @ memory_BHme + torch.where(token_C1, seen_BHC1 * (q @ near_BHme), q @ tokens_BHme)
    read_BHCe = before_BHCe + (q @ k.mT * _weights(positions, rate)) @ v
    token_k = k.masked_fill(~token_C1, 0)
    in_use_BC = positions.mask & positions.is_token
    newest_B = positions.index.where(in_use_BC, 0).amax(1).maximum(last_B)
    to_newest_BC = (newest_B[:, None] - positions.index).clamp_min(0).to(rate.dtype)
    fading_BHC1 = torch.exp(-rate_H11 * to_newest_BC[:, None, :, None])
    aged_BH11 = torch.exp(-rate_H11 * (newest_B - last_B).to(rate.dtype)[:, None, None, None])
    return read_BHCe, (
        memory_BHme + (k - token_k).mT @ v,
        tokens_BHme + token_k.mT @ v,
        aged_BH11 * near_BHme + (token_k * fading_BHC1).mT @ v,
        newest_B,
    )


def _weights(positions: CausalPositions, rate: Tensor | None) -> Tensor:
    """Return D with 0 above the diagonal, (R, H, C, C), or (R, 1, C, C) without decay."""
    distance_R1CC = (positions.index[:, :, None] - positions.index[:, None])[:, None]
    past_R1CC = distance_R1CC >= 0
    if rate is None:
        return past_R1CC
    token_C = positions.is_token
    fading_R1CC = distance_R1CC.masked_fill(~(token_C[:, None] & token_C) | ~past_R1CC, 0)
    return torch.exp(-rate[:, None, None] * fading_R1CC.to(rate.dtype)) * past_R1CC
