"""Random queries, keys and values, in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def draw() -> Callable[..., tuple[Tensor, ...]]:
    """A function of sizes that gives q, k (B, H, N, m) and v (B, H, N, d)."""

    def draw(n: int, m: int = 4, d: int = 6, batch: int = 2, heads: int = 3) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(n)
        shapes = [(batch, heads, n, size) for size in (m, m, d)]
        return tuple(torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes)

    return draw
