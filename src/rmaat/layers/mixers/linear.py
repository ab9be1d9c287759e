"""Linear attention as a mixer."""

from torch import Tensor

from rmaat.layers.mixers.base import AttentionMixer
from rmaat.ops import linear_attention


class LinearMixer(AttentionMixer):
    """Linear attention with phi = elu + 1 (arXiv 2006.16236)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """Every position reads all tokens."""
        return linear_attention(q, k, v, mask_BN)
