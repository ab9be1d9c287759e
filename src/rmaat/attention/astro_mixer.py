"""Astromorphic attention as a module: its parameters, and the choice of the operator.

Axes: B batch, H heads, N positions (memory first), m features of queries and keys, d features of
values.
"""

import math

import torch
from torch import Tensor, nn
from transformers import initialization as init

from rmaat.attention.astro import MEAN_FEATURE, astromorphic_attention, unit_read_scale
from rmaat.attention.astro_causal import causal_astromorphic_attention
from rmaat.attention.astro_extended import MEAN_SQUARE_FEATURE, Extension, decayed_sums, extended_attention, rotations
from rmaat.attention.base import CausalAttentionMixer
from rmaat.attention.causal import CausalPositions, Tensors, empty_sums
from rmaat.attention.decay import relative_positions
from rmaat.attention.precision import at_least_float32
from rmaat.settings import ModelSettings

INITIAL_R = 0.5
"""Size of R at the start.

phi(R) weighs a position alike for every reader: a larger R makes all readings more alike.
"""


SHORTEST_HALF_LIFE = 4.0
"""Tokens over which the fastest decay halves a weight at the start."""


LARGEST_LOG_RATE = 10.0
"""At this rate the next token has a weight of 0 in float32."""


def initial_decay_rates(num_heads: int, num_tokens: int, device: torch.device | None = None) -> Tensor:
    """Return the decay of each head per position, (H,): half-lives from 4 tokens to a segment [C].

    They are evenly spaced by their logarithms. The first head has none: its rate is 0.
    """
    longest = max(SHORTEST_HALF_LIFE, float(num_tokens))
    log_half_lives = torch.linspace(math.log(SHORTEST_HALF_LIFE), math.log(longest), num_heads - 1, device=device)
    rates = math.log(2) * (-log_half_lives).exp()
    return torch.cat([rates.new_zeros(1), rates])


class AstromorphicMixer(CausalAttentionMixer):
    """Astromorphic attention [P] over the memory and the tokens of a segment, as a module.

    `basis` is M (H, m, N), from which the relative positions R come; N is memory plus segment
    length, memory first [C]. With a `basis_stride` it holds one column for that many neighbours,
    which share it. Without H_astro there is none.

    The parts beyond the paper are those of `rmaat.attention.astro_extended`. `log_rate` (H - 1,) are
    the logarithms of the learned decay rates; `gain` (H, 1, d) are the factors of normed readings.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        head_width = self.head_width
        self.num_positions = settings.num_positions
        self.stride = settings.basis_stride
        shape = (self.num_heads, head_width, -(-self.num_positions // self.stride))
        self.basis = nn.Parameter(torch.empty(shape)) if settings.hebbian_astro else None
        self.alpha = settings.calcium_exponent
        self.hebbian_scale = settings.hebbian_scale
        self.hebbian_sigmoid = settings.hebbian_sigmoid
        self.presynaptic_plasticity = settings.presynaptic_plasticity
        self.decay = settings.position_decay
        self.num_memory = settings.memory_positions
        self.attention_decay = settings.attention_decay
        learned = settings.attention_decay == "learned"
        self.log_rate = nn.Parameter(torch.empty(self.num_heads - 1)) if learned else None
        self.unit_features = settings.unit_features
        self.rotary = settings.rotary_positions
        self.gain = nn.Parameter(torch.empty(self.num_heads, 1, head_width)) if settings.reading_norm else None
        self.extended = (
            settings.attention_decay != "none"
            or settings.unit_features
            or settings.rotary_positions
            or settings.reading_norm
        )

    def initialise(self) -> None:
        """Initialise the parameters.

        M is normal, scaled so that the R of each head has the root mean square INITIAL_R [C]. In long
        segments it then has a standard deviation of order N^(-1/3); in short ones a smaller one.
        """
        if self.log_rate is not None:
            init.copy_(self.log_rate, self._initial_rates(self.log_rate.device)[1:].log())
        if self.gain is not None:
            init.ones_(self.gain)
        if self.basis is None:
            return
        basis_HmN = torch.randn(self.basis.shape)
        size_H11 = self._relative_positions(basis_HmN).pow(2).mean((1, 2), keepdim=True).sqrt()
        # R is cubic in M.
        init.copy_(self.basis, basis_HmN * (INITIAL_R / size_H11) ** (1 / 3))

    def shared(self) -> Tensor | None:
        """R before the feature map, (H, N, m), and the rotations behind it; None without both."""
        like = self.query_key_value.weight
        r = None if self.basis is None else self._relative_positions(self.basis)
        if not self.rotary:
            return r
        # Here they are computed once. A compiled step would compute the cosines of each use anew.
        rotation_Nm = rotations(self.num_positions, self.head_width, at_least_float32(like))
        rotation_HNm = rotation_Nm.expand(self.num_heads, -1, -1)
        return rotation_HNm if r is None else torch.cat([r, rotation_HNm], -1)

    def _parts_of_shared(self, shared: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return R (H, N, m) and the rotations (N, m // 2 * 2); None for what the settings leave out."""
        if shared is None or not self.rotary:
            return shared, None
        # Without R the rotations are all there is.
        columns_of_r = 0 if self.basis is None else self.head_width
        r, rotation_HNm = shared[..., :columns_of_r], shared[..., columns_of_r:]
        return (r if columns_of_r else None), rotation_HNm[0]

    def _relative_positions(self, basis_HmN: Tensor) -> Tensor:
        if self.stride > 1:
            basis_HmN = basis_HmN.repeat_interleave(self.stride, -1)[..., : self.num_positions]
        return relative_positions(basis_HmN, self.decay)

    def _initial_rates(self, device: torch.device | None = None) -> Tensor:
        return initial_decay_rates(self.num_heads, self.num_positions - self.num_memory, device)

    def _rates(self, device: torch.device, dtype: torch.dtype) -> Tensor | None:
        """Return the decay of each head, (H,), or None without decay."""
        if self.attention_decay == "none":
            return None
        if self.log_rate is None:
            return self._initial_rates(device).to(dtype)
        # Clamped: an infinite rate times the distance 0 would be NaN.
        return torch.cat([self.log_rate.new_zeros(1), self.log_rate.clamp_max(LARGEST_LOG_RATE).exp()]).to(dtype)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """Astromorphic attention with the first positions of R and of the rotations."""
        r, rotation = self._parts_of_shared(shared)
        r = None if r is None else r[:, : k.shape[2]]
        # Counted in the type that sums are made in: bfloat16 has no whole numbers beyond 256.
        wide = torch.promote_types(k.dtype, torch.float32)
        if not self.extended:
            divisor = self._scale(mask_BN.sum(1, dtype=wide)) if self.hebbian_scale == "auto" else self.hebbian_scale
            return astromorphic_attention(
                *(q, k, v, r, self.alpha, divisor),
                mask_BN,
                hebbian_sigmoid=self.hebbian_sigmoid,
                presynaptic_plasticity=self.presynaptic_plasticity,
            )
        rate, scale = self._rates(k.device, wide), None
        # The norm of a reading removes s, so it needs no count.
        if self.gain is None:
            count_B1N1 = mask_BN[:, None, :, None].to(wide)
            # With decay, a position counts the others by their weights.
            if rate is None:
                count = count_B1N1.sum(2, keepdim=True)
            else:
                count = decayed_sums(count_B1N1.expand(-1, self.num_heads, -1, -1), rate, self.num_memory)
            scale = self._scale(count)
        return extended_attention(
            *(q, k, v, r, self.alpha, scale, mask_BN),
            Extension(self.num_memory, rate, self.unit_features, rotation, self.gain),
            presynaptic_plasticity=self.presynaptic_plasticity,
        )

    def _scale(self, count: Tensor) -> Tensor:
        """Return s for each count of positions, in its shape."""
        if self.hebbian_scale != "auto":
            return count.new_full((1,), self.head_width if self.hebbian_scale is None else self.hebbian_scale)
        # A unit feature vector has the mean entry mu / sqrt(m E phi^2).
        length = math.sqrt(self.head_width * MEAN_SQUARE_FEATURE) if self.unit_features else 1.0
        return unit_read_scale(
            *(count, self.head_width, self.alpha),
            hebbian_astro=self.basis is not None,
            presynaptic_plasticity=self.presynaptic_plasticity,
            mean_feature=MEAN_FEATURE / length,
        )

    def start(self, batch: int, like: Tensor) -> Tensors:
        """No Hebbian weights and no keys yet."""
        width, decays, wide = self.head_width, self.attention_decay != "none", at_least_float32(like)
        hebbian = empty_sums(batch, (self.num_heads, width, width), decays, wide)
        return (*hebbian, *empty_sums(batch, (self.num_heads, 1, width + 1), decays, wide))

    def attend_causally(
        self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, positions: CausalPositions, carried: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Causal astromorphic attention with the piece's positions of R and of the rotations."""
        r, rotation = self._parts_of_shared(shared)
        rate = self._rates(k.device, torch.promote_types(k.dtype, torch.float32))
        half = len(carried) // 2
        read_BHNd, (hebbian, keys) = causal_astromorphic_attention(
            *(q, k, v, r, self.alpha, self._scale, positions),
            Extension(0, rate, self.unit_features, rotation, self.gain),
            (carried[:half], carried[half:]),
            presynaptic_plasticity=self.presynaptic_plasticity,
        )
        return read_BHNd, (*hebbian, *keys)
