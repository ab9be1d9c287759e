"""Token mixers: what moves information between the positions of a segment.

Axes: B batch, N positions, D width, H heads, m = d = D / H features of a head.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from rmaat.ops import astromorphic_attention, relative_positions, softmax_attention
from rmaat.registry import Registry
from rmaat.settings import ModelSettings


class Mixer(nn.Module, ABC):
    """Multi-head attention without biases in queries, keys and values [A]; heads are concatenated and projected [C]."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.num_heads = settings.num_attention_heads
        self.query_key_value = nn.Linear(settings.hidden_size, 3 * settings.hidden_size, bias=False)
        self.output = nn.Linear(settings.hidden_size, settings.hidden_size)

    def shared(self) -> Tensor | None:
        """What depends on parameters alone, computed once for all segments."""
        return None

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """Mix (B, H, N, m) queries, keys and values to (B, H, N, d)."""

    def forward(self, x_BND: Tensor, mask_BN: Tensor, shared: Tensor | None) -> Tensor:
        """(B, N, D) -> (B, N, D), without the residual; `mask_BN` is True where there is a token."""
        qkv = self.query_key_value(x_BND).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed_BHNd = self.attend(q, k, v, shared, mask_BN)
        return self.output(mixed_BHNd.transpose(1, 2).flatten(-2))


class AstromorphicMixer(Mixer):
    """Astromorphic attention [P] over the memory and the tokens of a segment.

    `basis` is M (H, m, N), from which the relative positions R come; N is memory plus segment length, memory first [C].
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        head_width = settings.hidden_size // settings.num_attention_heads
        positions = settings.num_memory_tokens + settings.segment_length
        self.basis = nn.Parameter(torch.empty(self.num_heads, head_width, positions))
        self.alpha = settings.calcium_exponent
        self.hebbian_scale = settings.hebbian_scale
        self.decay = settings.position_decay

    def shared(self) -> Tensor:
        """R before the feature map, (H, N, m)."""
        return relative_positions(self.basis, self.decay)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """Astromorphic attention with R = `shared`."""
        return astromorphic_attention(q, k, v, shared, self.alpha, self.hebbian_scale, mask_BN)


class SoftmaxMixer(Mixer):
    """Softmax attention."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """PyTorch's scaled dot-product attention."""
        return softmax_attention(q, k, v, mask_BN)


MIXERS: Registry[type[Mixer]] = Registry("attention type", {"astro": AstromorphicMixer, "softmax": SoftmaxMixer})
