"""Linear attention: the kernel is a product of positive features (arXiv 2006.16236).

Axes: B batch, H heads, N positions, m features of queries and keys, d features of values.
"""

import torch
from torch import Tensor
from torch.nn.functional import elu

from rmaat.attention.base import CausalAttentionMixer
from rmaat.attention.causal import CausalPositions, Tensors, causal_sums, empty_sums
from rmaat.attention.features import feature_map
from rmaat.attention.precision import at_least_float32, no_autocast


def reference_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the mean of the values with weights phi(q_i) . phi(k_j), phi(x) = elu(x) + 1.

    Softmax attention with the kernel exp(q . k) replaced (arXiv 2006.16236, equation 4). Arguments
    and result are those of `linear_attention`, in O(N^2).
    """
    weight_BHNN = (elu(q) + 1) @ (elu(k) + 1).mT
    if mask is not None:
        weight_BHNN = weight_BHNN * mask[:, None, None, :]
    return weight_BHNN / weight_BHNN.sum(-1, keepdim=True) @ v


SMALLEST_NORMALISER = 1e-12
"""Sums of key features are clamped from below here: without any token they are 0."""


def kernel_attention(phi_q: Tensor, phi_k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return phi(Q) (phi(K)^T V) / (phi(Q) phi(K)^T 1), row by row, in O(N m d) (arXiv 2006.16236).

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
    """Return kernel attention with phi(x) = elu(x) + 1 (arXiv 2006.16236).

    Args:
        q, k: (B, H, N, m), before phi.
        v: (B, H, N, d).
        mask: (B, N) bool, True where there is a token.

    Returns:
        (B, H, N, d), the dtype of v.
    """
    with no_autocast(v):
        return kernel_attention(feature_map(at_least_float32(q)), feature_map(at_least_float32(k)), v, mask)


class LinearMixer(CausalAttentionMixer):
    """Linear attention with phi = elu + 1 (arXiv 2006.16236)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """Every position reads all tokens."""
        return linear_attention(q, k, v, mask_BN)

    def start(self, batch: int, like: Tensor) -> Tensors:
        """No sums yet, of values and of keys."""
        return empty_sums(batch, (self.num_heads, self.head_width, self.head_width + 1), False, at_least_float32(like))

    def attend_causally(
        self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, positions: CausalPositions, carried: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Every position reads the tokens up to its own."""
        with no_autocast(v):
            absent_B1N1 = ~positions.mask[:, None, :, None]
            phi_q, phi_k = (feature_map(at_least_float32(x)) for x in (q, k))
            phi_k = phi_k.masked_fill(absent_B1N1, 0)
            values = at_least_float32(v).masked_fill(absent_B1N1, 0)
            # The sum of keys is the sum of a value that is 1 everywhere.
            values = torch.cat([values, torch.ones_like(values[..., :1])], -1)
            sums_BHNe, carried = causal_sums(phi_q, phi_k, values, positions, None, carried)
            return (sums_BHNe[..., :-1] / sums_BHNe[..., -1:].clamp_min(SMALLEST_NORMALISER)).to(v.dtype), carried
