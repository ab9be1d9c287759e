"""Softmax attention as a mixer."""

from torch import Tensor

from rmaat.layers.mixers.base import AttentionMixer
from rmaat.ops import softmax_attention


class SoftmaxMixer(AttentionMixer):
    """Softmax attention (arXiv 1706.03762)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """PyTorch's scaled dot-product attention."""
        return softmax_attention(q, k, v, mask_BN)
