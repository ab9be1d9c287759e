"""Tokens or values, and positions, to vectors. Axes: B batch, S positions of a segment, P values of a position, D width."""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn


def sinusoidal_positions(length: int, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of geometric wavelengths from 2 pi to 10,000 * 2 pi, (length, width), on the device of `like`.

    Feature 2i is sin(p / 10000^(2i / width)), feature 2i + 1 its cosine; `width` must be even. Computed in float64, returned in
    the dtype of `like`. The last tables are cached: do not change one in place.
    """
    assert width % 2 == 0
    # A tensor made in inference mode could not take part in training later.
    with torch.inference_mode(False):
        return _sinusoids(length, width, like.dtype, like.device)


@lru_cache(maxsize=2)
def _sinusoids(length: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    position_S1 = torch.arange(length, dtype=torch.float64)[:, None]
    rate_D = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
    angle = position_S1 * rate_D
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2).to(device, dtype)


class TokenEmbedding(nn.Module):
    """Token ids (B, S), `uint8` or of any signed integer type, and positions (S, D) to vectors (B, S, D).

    Embeddings start at N(0, 1) [C], which is PyTorch's own start: sinusoids beside them have amplitude 1.
    """

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)

    def forward(self, ids_BS: Tensor, positions_SD: Tensor) -> Tensor:
        """The sum of both, (B, S, D)."""
        # A segment at a time: a long sequence of bytes stays bytes.
        return self.tokens(ids_BS.long()) + positions_SD


class ValueEmbedding(nn.Module):
    """Patches of real values (B, S, P) and positions (S, D) to vectors (B, S, D), by one linear map."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Linear(patch_size, width)

    def forward(self, values_BSP: Tensor, positions_SD: Tensor) -> Tensor:
        """The sum of both, (B, S, D)."""
        return self.scale(values_BSP) + positions_SD
