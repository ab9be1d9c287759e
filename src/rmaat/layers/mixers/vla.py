"""Variational linear attention as a mixer. Axes: B batch, H heads, N positions, m = d features of a head."""

import torch
from torch import Tensor

from rmaat.layers.mixers.base import AttentionMixer
from rmaat.ops import variational_linear_attention
from rmaat.settings import ModelSettings


class VariationalMixer(AttentionMixer):
    """Variational linear attention (arXiv 2605.11196), half of the heads from each end.

    [C]: the recurrence is causal; in an encoder the second half of the heads reads the positions from the last to the first, so
    that a layer sees both sides. With an odd number of heads the forward half has one more.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.ridge_penalty = settings.ridge_penalty

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """The recurrence on the first half of the heads, and on the second half with positions reversed."""
        half = -(-self.num_heads // 2)
        forward = variational_linear_attention(q[:, :half], k[:, :half], v[:, :half], self.ridge_penalty, mask_BN)
        q, k, v = (x[:, half:].flip(2) for x in (q, k, v))
        backward = variational_linear_attention(q, k, v, self.ridge_penalty, mask_BN.flip(1))
        return torch.cat([forward, backward.flip(2)], 1)
