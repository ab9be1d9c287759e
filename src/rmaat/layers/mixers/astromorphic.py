"""Astromorphic attention as a mixer. Axes: H heads, m features of a head, N positions."""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from rmaat.layers.mixers.base import AttentionMixer
from rmaat.ops import astromorphic_attention, relative_positions, unit_read_scale
from rmaat.settings import ModelSettings

INITIAL_R = 0.5
"""Size of R at the start. phi(R) weighs a position alike for every reader: the larger R, the more all readings have in common."""


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
        self.head_width = head_width
        self.hebbian_sigmoid = settings.hebbian_sigmoid
        self.presynaptic_plasticity = settings.presynaptic_plasticity
        self.decay = settings.position_decay

    def initialise(self) -> None:
        """Draw M from a normal distribution, scaled so that the R of each head has the root mean square INITIAL_R [C].

        In long segments M then has a standard deviation of order N^(-1/3); in short ones a smaller one.
        """
        if self.basis is None:
            return
        basis_HmN = torch.randn(self.basis.shape)
        size_H11 = self._relative_positions(basis_HmN).pow(2).mean((1, 2), keepdim=True).sqrt()
        # R is cubic in M.
        init.copy_(self.basis, basis_HmN * (INITIAL_R / size_H11) ** (1 / 3))

    def shared(self) -> Tensor | None:
        """R before the feature map, (H, N, m), or None without H_astro."""
        return None if self.basis is None else self._relative_positions(self.basis)

    def _relative_positions(self, basis_HmN: Tensor) -> Tensor:
        if self.stride > 1:
            basis_HmN = basis_HmN.repeat_interleave(self.stride, -1)[..., : self.num_positions]
        return relative_positions(basis_HmN, self.decay)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """Astromorphic attention with R = the first positions of `shared`."""
        scale: float | Tensor | None
        if self.hebbian_scale == "auto":
            # Counted in the type that sums are made in: bfloat16 has no whole numbers beyond 256.
            count_B = mask_BN.sum(1, dtype=torch.promote_types(k.dtype, torch.float32))
            scale = unit_read_scale(
                count_B,
                self.head_width,
                self.alpha,
                hebbian_astro=shared is not None,
                presynaptic_plasticity=self.presynaptic_plasticity,
            )
        else:
            scale = self.hebbian_scale
        return astromorphic_attention(
            q,
            k,
            v,
            None if shared is None else shared[:, : k.shape[2]],
            self.alpha,
            scale,
            mask_BN,
            hebbian_sigmoid=self.hebbian_sigmoid,
            presynaptic_plasticity=self.presynaptic_plasticity,
        )
