"""Linear attention against its weights position by position, and against astromorphic attention without astrocyte."""

import pytest
import torch

from rmaat.attention.linear import reference_linear_attention
from rmaat.ops import astromorphic_attention, linear_attention


@pytest.mark.parametrize("mask", [None, torch.arange(6) < torch.tensor([6, 4])[:, None]], ids=["whole", "padded"])
def test_it_is_its_reference(draw, assert_same, mask):
    forms = (lambda *x: linear_attention(*x, mask), lambda *x: reference_linear_attention(*x, mask))
    assert_same(*forms, draw(6))


def test_it_is_astromorphic_attention_with_alpha_1_and_no_astrocyte(draw):
    q, k, v = draw(40)
    wanted = astromorphic_attention(q, k, v, None, alpha=1.0, hebbian_scale=1.0)
    torch.testing.assert_close(linear_attention(q, k, v), wanted, rtol=1e-12, atol=1e-14)


def test_a_row_without_a_token_is_finite_both_ways(draw):
    inputs = [x.float().requires_grad_() for x in draw(5)]
    linear_attention(*inputs, torch.zeros(2, 5, dtype=torch.bool)).sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in inputs)


@pytest.mark.parametrize("length", [4096])
def test_sums_under_autocast_stay_in_float32(length):
    """In bfloat16 a count of 4,096 ones stops at 256."""
    ones = torch.ones(1, 1, length, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear_attention(ones, ones, ones)
    torch.testing.assert_close(found, ones, rtol=1e-6, atol=0)
