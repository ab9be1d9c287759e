"""Astromorphic attention: linear attention with a Hebbian astrocyte term and presynaptic plasticity.

Axes: B batch, H heads, N positions, m features of queries and keys, d features of values.
"""

import torch
from torch import Tensor
from torch.nn.functional import elu

from rmaat.ops.precision import at_least_float32, no_autocast

SMALLEST_NORMALISER = 1e-6
"""C is clamped from below here [C]: with every position masked it would be 0."""


def feature_map(x: Tensor) -> Tensor:
    """phi(x) = elu(x) + 1, positive [A]."""
    return elu(x) + 1


def astromorphic_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    r: Tensor | None,
    alpha: float = 0.25,
    hebbian_scale: float | None = None,
    mask: Tensor | None = None,
    *,
    hebbian_sigmoid: bool = False,
    presynaptic_plasticity: bool = True,
) -> Tensor:
    """Write the keys' and the astrocyte's Hebbian weights, read them normalised by the calcium response [P].

        write:  H = (phi(K) + phi(R))^T V / s        g = (sum_t phi(k_t))^alpha
        read:   L = [phi(Q) H] / C, row by row,      C = phi(Q) g^T

    The row-wise form is equation 18 of [A]. No residual is added.

    Args:
        q, k: (B, H, N, m), before phi.
        v: (B, H, N, d).
        r: (H, N, m), relative positions before phi, or None for H_astro = 0.
        alpha: exponent of the calcium response [A tested 0.15 to 0.4]; 1 makes g the plain sum of keys.
        hebbian_scale: s; None means m [P].
        mask: (B, N) bool, True where there is a token. A masked position adds nothing to H or g; its own row is computed.
        hebbian_sigmoid: read sigmoid(H) in place of H [A; P has none].
        presynaptic_plasticity: divide by C; without it the reading is phi(Q) H.

    Returns:
        (B, H, N, d) in the dtype of v. Sums over keys, g and 1/C are made in at least float32 under any autocast.

    Raises:
        ValueError: where r or mask does not fit.
    """
    batch, heads, n, m = k.shape
    if r is not None and r.shape != (heads, n, m):
        raise ValueError(f"astromorphic_attention: r must be {(heads, n, m)} as k is, not {tuple(r.shape)}")
    if mask is not None and mask.shape != (batch, n):
        raise ValueError(f"astromorphic_attention: mask must be {(batch, n)}, not {tuple(mask.shape)}")
    with no_autocast(q):
        phi_q_BHNm = feature_map(at_least_float32(q))
        phi_k_BHNm = feature_map(at_least_float32(k))
        v_BHNd = at_least_float32(v)
        if mask is not None:
            absent_B1N1 = ~mask[:, None, :, None]
            phi_k_BHNm = phi_k_BHNm.masked_fill(absent_B1N1, 0)
            v_BHNd = v_BHNd.masked_fill(absent_B1N1, 0)
        write_BHNm = phi_k_BHNm if r is None else phi_k_BHNm + feature_map(r.to(phi_k_BHNm.dtype))
        hebbian_BHmd = write_BHNm.mT @ v_BHNd / (m if hebbian_scale is None else hebbian_scale)
        if hebbian_sigmoid:
            hebbian_BHmd = hebbian_BHmd.sigmoid()
        if not presynaptic_plasticity:
            return (phi_q_BHNm @ hebbian_BHmd).to(v.dtype)
        # Clamped because the power's slope at 0 is infinite, which a fully masked row would turn into NaN gradients.
        calcium_BHm1 = phi_k_BHNm.sum(-2).clamp_min(torch.finfo(phi_k_BHNm.dtype).tiny).pow(alpha).unsqueeze(-1)
        normaliser_BHN1 = (phi_q_BHNm @ calcium_BHm1).clamp_min(SMALLEST_NORMALISER)
        return (phi_q_BHNm @ hebbian_BHmd / normaliser_BHN1).to(v.dtype)
