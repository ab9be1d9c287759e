"""The O(N) decayed sum against the N x N product, in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaat.attention.decay import reference_decayed_sum, reference_relative_positions
from rmaat.ops import decayed_sum, relative_positions


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm().clamp_min(1e-300)).item()


@settings(deadline=None, max_examples=40)
@given(
    n=st.sampled_from([1, 2, 63, 64, 65, 127, 128, 500, 1000]),
    m=st.integers(1, 5),
    lead=st.sampled_from([(), (3,), (2, 3)]),
    scale=st.floats(0, 3),
)
def test_equals_the_dense_product(n, m, lead, scale):
    z = torch.randn(*lead, n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    assert relative(decayed_sum(z, scale), reference_decayed_sum(z, scale)) < 1e-12


def test_it_is_its_reference(assert_same):
    z = torch.randn(2, 300, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_same(lambda z: decayed_sum(z, 0.07), lambda z: reference_decayed_sum(z, 0.07), (z,))


def test_gradient_at_65536_positions():
    """E is symmetric, so the gradient is E times what comes in, whose own value the next test holds against recurrences."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(65_536, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    cotangent = torch.randn(65_536, 2, dtype=torch.float64, generator=generator)
    (found,) = torch.autograd.grad(decayed_sum(z, 0.01), z, cotangent)
    assert relative(found, decayed_sum(cotangent, 0.01)) < 1e-12


def test_is_exact_at_65536_positions_against_two_recurrences():
    z = np.random.default_rng(0).standard_normal((65_536, 2))
    decay = np.exp(-0.01)
    forward, backward = np.empty_like(z), np.empty_like(z)
    carry = np.zeros(2)
    for i in range(len(z)):
        carry = carry * decay + z[i]
        forward[i] = carry
    carry = np.zeros(2)
    for i in reversed(range(len(z))):
        carry = carry * decay + z[i]
        backward[i] = carry
    found = decayed_sum(torch.from_numpy(z), 0.01)
    assert relative(found, torch.from_numpy(forward + backward - z)) < 1e-12


def test_bfloat16_is_summed_in_float32():
    z = torch.full((1, 4096, 1), 1.0, dtype=torch.bfloat16)
    found = decayed_sum(z, 0.0)
    assert found.dtype == torch.bfloat16
    assert torch.all(found == 4096)


def test_relative_positions_are_their_reference(assert_same):
    basis = torch.randn(2, 3, 70, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    forms = (lambda x: relative_positions(x, 0.1), lambda x: reference_relative_positions(x, 0.1))
    assert_same(*forms, (basis,))


@pytest.mark.parametrize(("z", "scale"), [(torch.zeros(3, 2), -0.1), (torch.zeros(3), 0.1)])
def test_refuses_what_does_not_fit(z, scale):
    with pytest.raises(ValueError, match="decayed_sum"):
        decayed_sum(z, scale)
