"""Softmax attention over one segment (arXiv 1706.03762), by PyTorch's own kernel.

Axes: B batch, H heads, N positions (of queries, or of keys and values), d features.
"""

from torch import Tensor, inf
from torch.nn.functional import scaled_dot_product_attention

from rmaat.attention.base import AttentionMixer


def reference_softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Return softmax(Q K^T / sqrt(d)) V with the N x N weights written out.

    Arguments and result are those of `softmax_attention`, but a row without any token gives NaN.
    """
    score_BHNN = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        score_BHNN = score_BHNN.masked_fill(~mask[:, None, None, :], -inf)
    return score_BHNN.softmax(-1) @ v


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return softmax(Q K^T / sqrt(d)) V over the positions that hold a token.

    Args:
        q: (B, H, N, d).
        k, v: (B, H, N, d); as many positions as each other, not necessarily as q.
        mask: (B, N) bool over keys, True where there is a token; a row without any attends to all
            positions, to stay finite.

    Returns:
        (B, H, N, d), the dtype of v.
    """
    if mask is None:
        return scaled_dot_product_attention(q, k, v)
    attended_BN = mask | ~mask.any(-1, keepdim=True)
    return scaled_dot_product_attention(q, k, v, attn_mask=attended_BN[:, None, None, :])


class SoftmaxMixer(AttentionMixer):
    """Softmax attention (arXiv 1706.03762)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """PyTorch's scaled dot-product attention."""
        return softmax_attention(q, k, v, mask_BN)
