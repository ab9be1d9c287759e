"""Astromorphic attention as a mixer. Axes: H heads, m features of a head, N positions."""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from rmaat.layers.mixers.base import AttentionMixer
from rmaat.ops import astromorphic_attention, decayed_sum, relative_positions
from rmaat.settings import ModelSettings


class AstromorphicMixer(AttentionMixer):
    """Astromorphic attention [P] over the memory and the tokens of a segment.

    `basis` is M (H, m, N), from which the relative positions R come; N is memory plus segment length, memory first [C]. With a
    `basis_stride` it holds every so manieth column, which its neighbours share. Without H_astro there is none.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        head_width = settings.hidden_size // settings.num_attention_heads
        self.num_positions = settings.num_positions
        self.stride = settings.basis_stride
        shape = (self.num_heads, head_width, -(-self.num_positions // self.stride))
        self.basis = nn.Parameter(torch.empty(shape)) if settings.hebbian_astro else None
        self.alpha = settings.calcium_exponent
        self.hebbian_scale = settings.hebbian_scale
        self.hebbian_sigmoid = settings.hebbian_sigmoid
        self.presynaptic_plasticity = settings.presynaptic_plasticity
        self.decay = settings.position_decay

    def initialise(self) -> None:
        """Variance (N s)^(-2/3) makes R of order 1 [C], s being the sum of E over the positions of one column: 1 without stride."""
        if self.basis is not None:
            own = decayed_sum(torch.ones(self.stride, 1), self.decay).mean().item()
            init.normal_(self.basis, std=(self.num_positions * own) ** (-1 / 3))

    def shared(self) -> Tensor | None:
        """R before the feature map, (H, N, m), or None without H_astro."""
        if self.basis is None:
            return None
        basis_HmN = (
            self.basis.repeat_interleave(self.stride, -1)[..., : self.num_positions] if self.stride > 1 else self.basis
        )
        return relative_positions(basis_HmN, self.decay)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """Astromorphic attention with R = the first positions of `shared`."""
        return astromorphic_attention(
            q,
            k,
            v,
            None if shared is None else shared[:, : k.shape[2]],
            self.alpha,
            self.hebbian_scale,
            mask_BN,
            hebbian_sigmoid=self.hebbian_sigmoid,
            presynaptic_plasticity=self.presynaptic_plasticity,
        )
