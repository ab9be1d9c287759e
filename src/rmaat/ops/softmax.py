"""Softmax attention over one segment, by PyTorch's own kernel.

Axes: B batch, H heads, N positions (of queries, or of keys and values), d features.
"""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V over the positions that hold a token.

    Args:
        q: (B, H, N, d).
        k, v: (B, H, N, d); as many positions as each other, not necessarily as q.
        mask: (B, N) bool over keys, True where there is a token; a row without any attends to all positions, to stay finite.

    Returns:
        (B, H, N, d), the dtype of v.
    """
    if mask is None:
        return scaled_dot_product_attention(q, k, v)
    attended_BN = mask | ~mask.any(-1, keepdim=True)
    return scaled_dot_product_attention(q, k, v, attn_mask=attended_BN[:, None, None, :])
