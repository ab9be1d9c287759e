"""Linear attention: attention by a kernel that is a product of positive features.

Axes: B batch, H heads, N positions, m features of queries and keys, d features of values.
"""

from torch import Tensor

from rmaat.ops.features import feature_map
from rmaat.ops.precision import at_least_float32, no_autocast

SMALLEST_NORMALISER = 1e-12
"""Sums of key features are clamped from below here: without any token they are 0."""


def kernel_attention(phi_q: Tensor, phi_k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """phi(Q) (phi(K)^T V) / (phi(Q) phi(K)^T 1), row by row, in O(N m d) (arXiv 2006.16236).

    Args:
        phi_q, phi_k: (B, H, N, m), positive features.
        v: (B, H, N, d).
        mask: (B, N) bool, True where there is a token; other positions add nothing.

    Returns:
        (B, H, N, d), the dtype of v. Sums are made in at least float32 under any autocast.
    """
    with no_autocast(v):
        phi_q, phi_k, values = at_least_float32(phi_q), at_least_float32(phi_k), at_least_float32(v)
        if mask is not None:
            absent_B1N1 = ~mask[:, None, :, None]
            phi_k, values = phi_k.masked_fill(absent_B1N1, 0), values.masked_fill(absent_B1N1, 0)
        sums_BHm1 = phi_k.sum(-2).unsqueeze(-1)
        normaliser_BHN1 = (phi_q @ sums_BHm1).clamp_min(SMALLEST_NORMALISER)
        return (phi_q @ (phi_k.mT @ values) / normaliser_BHN1).to(v.dtype)


def linear_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Kernel attention with phi(x) = elu(x) + 1 (arXiv 2006.16236).

    Args:
        q, k: (B, H, N, m), before phi.
        v: (B, H, N, d).
        mask: (B, N) bool, True where there is a token.

    Returns:
        (B, H, N, d), the dtype of v.
    """
    with no_autocast(v):
        return kernel_attention(feature_map(at_least_float32(q)), feature_map(at_least_float32(k)), v, mask)
