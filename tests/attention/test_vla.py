"""Variational linear attention by chunks against its recurrence, token by token."""

import pytest
import torch

from rmaat.attention.vla import CHUNK, reference_variational_linear_attention
from rmaat.ops import variational_linear_attention


@pytest.mark.parametrize("n", [1, 5, CHUNK, CHUNK + 1, 2 * CHUNK + 37])
@pytest.mark.parametrize("ridge", [1.0, 0.05])
def test_it_is_its_reference(draw, assert_same, n, ridge):
    """Chunks are the recurrence."""
    mask = torch.arange(n) < torch.tensor([n, max(1, n // 2)])[:, None]
    forms = variational_linear_attention, reference_variational_linear_attention
    assert_same(*(lambda *x, form=form: form(*x, ridge, mask) for form in forms), draw(n, heads=2), 1e-8)


def test_without_a_mask_all_positions_write(draw, assert_same):
    assert_same(variational_linear_attention, reference_variational_linear_attention, draw(20), 1e-8)


def test_float32_stays_near_float64_over_a_long_sequence(draw):
    inputs = draw(2000, m=16)
    wanted = variational_linear_attention(*inputs)
    found = variational_linear_attention(*(x.float() for x in inputs)).double()
    assert (found - wanted).norm() < 1e-3 * wanted.norm()


def test_a_row_without_a_token_is_finite_both_ways(draw):
    inputs = [x.float().requires_grad_() for x in draw(5)]
    variational_linear_attention(*inputs, 1.0, torch.zeros(2, 5, dtype=torch.bool)).sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in inputs)


def test_half_of_the_heads_of_vla_read_backwards(make_mixer, positions, mask):
    """A change at the last token reaches the first one through the second head alone."""
    mixer, x = make_mixer("vla"), positions[1:, :6]
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in mixer.query_key_value(x).chunk(3, -1))
    forward = variational_linear_attention(q[:, :1], k[:, :1], v[:, :1])
    backward = variational_linear_attention(*(y[:, 1:].flip(2) for y in (q, k, v))).flip(2)
    wanted = mixer.output(torch.cat([forward, backward], 1).transpose(1, 2).flatten(-2))
    found = mixer(positions, mask, None)[1:, :6]
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
