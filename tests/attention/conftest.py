"""Random inputs in float64, small mixers, and the comparison of two forms of one function."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rmaat.attention.base import Mixer, build_mixer
from rmaat.models.pretrained import RmaatPreTrainedModel
from rmaat.settings import ModelSettings


@pytest.fixture
def draw() -> Callable[..., tuple[Tensor, ...]]:
    """A function of sizes that gives q, k (B, H, N, m) and v (B, H, N, d)."""

    def draw(n: int, m: int = 4, d: int = 6, batch: int = 2, heads: int = 3) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(n)
        shapes = [(batch, heads, n, size) for size in (m, m, d)]
        return tuple(torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes)

    return draw


@pytest.fixture
def assert_same() -> Callable[..., None]:
    """A check of the results and gradients of two functions of the same float64 tensors."""

    def check(
        fast: Callable[..., Tensor],
        reference: Callable[..., Tensor],
        inputs: tuple[Tensor, ...],
        tolerance: float = 1e-11,
    ) -> None:
        inputs = tuple(x.detach().requires_grad_() for x in inputs)
        results = fast(*inputs), reference(*inputs)
        generator = torch.Generator().manual_seed(1)
        cotangent = torch.randn(results[0].shape, dtype=torch.float64, generator=generator)
        gradients = (torch.autograd.grad(result, inputs, cotangent) for result in results)
        pairs = [results, *zip(*gradients, strict=True)]
        for index, (one, other) in enumerate(pairs):
            assert one.dtype == torch.float64
            assert other.norm() > 0
            name = f"the gradient of input {index - 1}" if index else "the result"
            error, size = (one - other).norm().item(), other.norm().item()
            # A gradient can be 0 but for rounding, as that of a query with one key.
            assert error < tolerance * size + 1e-13, f"{name} is off by {error:.1e} of {size:.1e}"

    return check


@pytest.fixture
def make_mixer() -> Callable[..., Mixer]:
    """A function that gives a mixer on 13 positions of width 8, two heads, at its initial values."""

    def make(attention_type: str, dtype: torch.dtype = torch.float64, **settings: object) -> Mixer:
        sizes = {
            "hidden_size": 8,
            "num_attention_heads": 2,
            "num_segments": 1,
            "max_seq_len": 11,
            "num_memory_tokens": 2,
            "num_landmarks": 4,
            "conv_kernel_size": 3,
            "linformer_size": 5,
            "state_size": 6,
            "num_random_features": 7,
        }
        torch.manual_seed(0)
        mixer = build_mixer(ModelSettings(attention_type=attention_type, **{**sizes, **settings}))
        initialise = RmaatPreTrainedModel._init_weights
        mixer.apply(lambda module: initialise(None, module))
        return mixer.to(dtype)

    return make


@pytest.fixture
def positions() -> Tensor:
    """What a mixer of `make_mixer` is called with, (2, 13, 8) in float64."""
    return torch.randn(2, 13, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def mask() -> Tensor:
    """Its mask: 13 and 6 tokens."""
    return torch.arange(13) < torch.tensor([13, 6])[:, None]
