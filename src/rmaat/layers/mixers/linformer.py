"""Linformer's attention as a mixer. Axes: B batch, H heads, N positions, k projected positions, d features of a head."""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from rmaat.layers.mixers.base import AttentionMixer
from rmaat.ops import softmax_attention
from rmaat.settings import ModelSettings


class LinformerMixer(AttentionMixer):
    """Softmax attention to k learned sums over positions (arXiv 2006.04768).

    `projection` E (k, N) is shared by heads, keys and values: the paper's key-value sharing. N is memory plus segment length.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.projection = nn.Parameter(torch.empty(settings.linformer_size, settings.num_positions))

    def initialise(self) -> None:
        """Variance 1 / N keeps the size of independent keys [C]."""
        init.normal_(self.projection, std=self.projection.shape[-1] ** -0.5)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """softmax(Q (E K)^T / sqrt(d)) E V; a masked position adds nothing to the sums."""
        projection = self.projection[:, : k.shape[2]]
        projected = (projection @ x.masked_fill(~mask_BN[:, None, :, None], 0) for x in (k, v))
        return softmax_attention(q, *projected)
