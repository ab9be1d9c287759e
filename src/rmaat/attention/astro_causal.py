"""Causal astromorphic attention: every sum is one over the positions up to the reader's own [C].

    L_i = sum_(j <= i) W_ij v_j / (s_i C_i)      C_i = phi(q_i) . (sum_(t <= i) D_it phi(k_t))^alpha

W_ij and D_ij are those of `rmaat.attention.astro_extended`. Row i is that of attention in both
directions over the positions up to i: the Hebbian weights, the calcium response and its power, the
count that the scale s follows. The relative positions r_j depend on parameters alone.

Axes: B batch, R rows with indices of their own (B or 1), H heads, N positions of a piece, m features
of queries and keys, d features of values.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rmaat.attention.astro import SMALLEST_NORMALISER, calcium_response
from rmaat.attention.astro_extended import Extension, normed, prepared
from rmaat.attention.causal import CausalPositions, Tensors, causal_sums
from rmaat.attention.precision import no_autocast


def causal_astromorphic_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    r: Tensor | None,
    alpha: float,
    scale: Callable[[Tensor], Tensor],
    positions: CausalPositions,
    extension: Extension,
    carried: tuple[Tensors, Tensors],
    *,
    presynaptic_plasticity: bool = True,
) -> tuple[Tensor, tuple[Tensors, Tensors]]:
    """Return L for a piece of a segment, and the sums for the next piece.

    Args:
        q, k: (B, H, N, m), before phi.
        v: (B, H, N, d).
        r: (H, N_all, m), relative positions of the whole segment before phi, or None.
        alpha: exponent of the calcium response.
        scale: returns s for counts (B, H, N, 1) of the positions that are read; decayed ones with
            decay. Not called if the extension has a gain.
        positions: those of the piece.
        extension: the parts beyond the paper. The memory is named by `positions`.
        carried: of the piece before: what `causal_sums` carries of the Hebbian weights, (m, d), and
            of the keys with their count, (1, m + 1).
        presynaptic_plasticity: divide by C.

    Returns:
        (B, H, N, d) in the dtype of v, and both carried again.
    """
    with no_autocast(v):
        # (H, R, N, m) -> (R, H, N, m)
        r = None if r is None else r[:, positions.index].transpose(0, 1)
        index_R1N = positions.index[:, None]
        phi_q, phi_k, query, write, values = prepared(q, k, v, r, positions.mask, extension, index_R1N)
        rate, (hebbian, keys) = extension.rate, carried
        read_BHNd, hebbian = causal_sums(query, write, values, positions, rate, hebbian)
        if extension.gain is not None:
            return (normed(read_BHNd) * extension.gain).to(v.dtype), (hebbian, keys)
        # Keys are summed as values that a feature of 1 writes and reads. The last column counts.
        one_BHN1 = torch.ones_like(phi_k[..., :1])
        written = torch.cat([phi_k, one_BHN1.masked_fill(~positions.mask[:, None, :, None], 0)], -1)
        sums_BHNe, keys = causal_sums(one_BHN1, one_BHN1, written, positions, rate, keys)
        if presynaptic_plasticity:
            response_BHNm = calcium_response(sums_BHNe[..., :-1], alpha)
            read_BHNd = read_BHNd / (phi_q * response_BHNm).sum(-1, keepdim=True).clamp_min(SMALLEST_NORMALISER)
        return (read_BHNd / scale(sums_BHNe[..., -1:])).to(v.dtype), (hebbian, keys)
