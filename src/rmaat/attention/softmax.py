"""Softmax attention over one segment (arXiv 1706.03762), by PyTorch's own kernel.

Axes: B batch, H heads, N positions (of queries, or of keys and values), d features.
"""

import torch
from torch import Tensor, inf
from torch.nn.functional import scaled_dot_product_attention

from rmaat.attention.base import CausalAttentionMixer
from rmaat.attention.causal import CausalPositions, Tensors
from rmaat.settings import ModelSettings


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


class SoftmaxMixer(CausalAttentionMixer):
    """Softmax attention (arXiv 1706.03762)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.num_positions = settings.num_positions

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """PyTorch's scaled dot-product attention."""
        return softmax_attention(q, k, v, mask_BN)

    def start(self, batch: int, like: Tensor) -> Tensors:
        """Room for the keys and values of a segment, and which of them are there."""
        shape = (batch, self.num_heads, self.num_positions, self.head_width)
        there_BN = torch.zeros(batch, self.num_positions, dtype=torch.bool, device=like.device)
        return like.new_zeros(shape), like.new_zeros(shape), there_BN

    def attend_causally(
        self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, positions: CausalPositions, carried: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Every position reads those of the segment up to its own."""
        index_BN = positions.index.expand(len(k), -1)
        stored_k, stored_v, there_BN = carried
        place_BHNd = index_BN[:, None, :, None].expand_as(k)
        # Added to zeros, because positions that are not in use may have the index of one that is.
        there_BN = there_BN | (
            torch.zeros_like(there_BN, dtype=torch.int64).scatter_add(1, index_BN, positions.mask.long()) > 0
        )
        used_B1N1 = positions.mask[:, None, :, None]
        stored_k, stored_v = (
            stored.scatter_add(2, place_BHNd, x.to(stored.dtype).masked_fill(~used_B1N1, 0))
            for stored, x in ((stored_k, k), (stored_v, v))
        )
        all_N = torch.arange(self.num_positions, device=k.device)
        visible_BNN = there_BN[:, None] & (all_N <= index_BN[:, :, None])
        # A row without any key attends to all positions, to stay finite.
        visible_BNN = visible_BNN | ~visible_BNN.any(-1, keepdim=True)
        read = scaled_dot_product_attention(q, stored_k.to(q.dtype), stored_v.to(q.dtype), visible_BNN[:, None])
        return read, (stored_k, stored_v, there_BN)
