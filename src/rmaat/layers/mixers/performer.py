"""Performer's attention as a mixer. Axes: F random features, m features of a head."""

import math

import torch
from torch import Tensor
from transformers import initialization as init

from rmaat.layers.mixers.base import AttentionMixer
from rmaat.ops import orthogonal_directions, performer_attention
from rmaat.settings import ModelSettings


class PerformerMixer(AttentionMixer):
    """Softmax attention by positive orthogonal random features, FAVOR+ (arXiv 2009.14794).

    `directions` (F, m) are shared by the heads of a layer. They are drawn once and stored with the weights [C: the original
    may draw anew during training; a replayed segment must meet the same ones].
    """

    directions: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        head_width = settings.hidden_size // settings.num_attention_heads
        features = settings.num_random_features or max(1, int(head_width * math.log(head_width)))
        self.register_buffer("directions", torch.empty(features, head_width))

    def initialise(self) -> None:
        """Draw the directions, by PyTorch's default generator."""
        init.copy_(self.directions, orthogonal_directions(*self.directions.shape))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """Kernel attention on the random features."""
        return performer_attention(q, k, v, self.directions, mask_BN)
