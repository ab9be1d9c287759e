"""Astromorphic attention as a mixer. Axes: H heads, m features of a head, N positions."""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from rmaat.layers.mixers.base import AttentionMixer
from rmaat.ops import astromorphic_attention, relative_positions
from rmaat.settings import ModelSettings


class AstromorphicMixer(AttentionMixer):
    """Astromorphic attention [P] over the memory and the tokens of a segment.

    `basis` is M (H, m, N), from which the relative positions R come; N is memory plus segment length, memory first [C]. H is 1
    where the heads share it, and without H_astro there is none.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        head_width = settings.hidden_size // settings.num_attention_heads
        shape = (self.num_heads if settings.basis_per_head else 1, head_width, settings.num_positions)
        self.basis = nn.Parameter(torch.empty(shape)) if settings.hebbian_astro else None
        self.alpha = settings.calcium_exponent
        self.hebbian_scale = settings.hebbian_scale
        self.hebbian_sigmoid = settings.hebbian_sigmoid
        self.presynaptic_plasticity = settings.presynaptic_plasticity
        self.decay = settings.position_decay

    def initialise(self) -> None:
        """Variance N^(-2/3) makes R of order 1 [C]."""
        if self.basis is not None:
            init.normal_(self.basis, std=self.basis.shape[-1] ** (-1 / 3))

    def shared(self) -> Tensor | None:
        """R before the feature map, (H, N, m), or None without H_astro."""
        if self.basis is None:
            return None
        return relative_positions(self.basis, self.decay).expand(self.num_heads, -1, -1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """Astromorphic attention with R = `shared`."""
        return astromorphic_attention(
            q,
            k,
            v,
            shared,
            self.alpha,
            self.hebbian_scale,
            mask_BN,
            hebbian_sigmoid=self.hebbian_sigmoid,
            presynaptic_plasticity=self.presynaptic_plasticity,
        )
