"""Embeddings of tokens or values, and their positions.

Axes: B batch, S positions of a segment, P values of a position, D width.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn


def sinusoidal_positions(length: int, width: int, like: Tensor) -> Tensor:
    """Return a table of sinusoidal positions (arXiv 1706.03762), (length, width).

    Feature 2i of position p is sin(p / 10000^(2i / width)), feature 2i + 1 its cosine. The table is
    computed in float64. It has the dtype and the device of `like`. The last tables are cached: do
    not change one in place. `width` must be even.
    """
    assert width % 2 == 0
    if torch.compiler.is_exporting():
        # The table is a constant of the exported graph. The cache would keep a tensor without values.
        return _sinusoids.__wrapped__(length, width, like.dtype, like.device)
    # The cached table may serve training later, so it must not be an inference tensor.
    with torch.inference_mode(False):
        return _sinusoids(length, width, like.dtype, like.device)


@lru_cache(maxsize=2)
def _sinusoids(length: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    position_S1 = torch.arange(length, dtype=torch.float64)[:, None]
    rate_D = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
    angle = position_S1 * rate_D
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2).to(device, dtype)


class TokenEmbedding(nn.Module):
    """An embedding of token ids (B, S), `uint8` or any signed integer type, as vectors (B, S, D).

    Vectors are initialised by N(0, 1) [C], PyTorch's default: the sinusoids that are added to them
    have amplitude 1.
    """

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)

    def forward(self, ids_BS: Tensor, positions_SD: Tensor) -> Tensor:
        """Return the embedded tokens plus the positions (S, D), (B, S, D).

        Floating-point vectors (B, S, D) in the place of ids are tokens that are embedded already.
        """
        if ids_BS.is_floating_point():
            return ids_BS + positions_SD
        # Convert ids to int64 one segment at a time, so that a long sequence of bytes stays small.
        return self.tokens(ids_BS.long()) + positions_SD


class ValueEmbedding(nn.Module):
    """A linear embedding of patches of real values (B, S, P) as vectors (B, S, D)."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Linear(patch_size, width)

    def forward(self, values_BSP: Tensor, positions_SD: Tensor) -> Tensor:
        """Return the embedded patches plus the positions (S, D), (B, S, D)."""
        return self.scale(values_BSP) + positions_SD
