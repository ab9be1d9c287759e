"""Nyström attention: its inverse, its landmarks, and softmax where every token is a landmark."""

import pytest
import torch

from rmaat.ops import nystrom_attention, softmax_attention
from rmaat.ops.nystrom import iterative_inverse, segment_mean_weights


def test_the_iteration_finds_the_inverse():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=generator).softmax(-1)
    torch.testing.assert_close(iterative_inverse(x, 30), torch.linalg.pinv(x), rtol=1e-6, atol=1e-8)


def test_runs_are_of_like_length_and_average_tokens_alone():
    mask = torch.arange(7) < torch.tensor([7, 2, 6])[:, None]
    weights = segment_mean_weights(mask, 3, torch.float64)
    third = 1 / 3
    wanted = torch.tensor(
        [
            [[third] * 3 + [0] * 4, [0] * 3 + [0.5, 0.5] + [0] * 2, [0] * 5 + [0.5, 0.5]],
            [[1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [0] * 7],
            [[0.5, 0.5] + [0] * 5, [0] * 2 + [0.5, 0.5] + [0] * 3, [0] * 4 + [0.5, 0.5, 0]],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(weights, wanted)


def test_with_a_landmark_a_token_it_is_softmax(draw, monkeypatch):
    monkeypatch.setattr("rmaat.ops.nystrom.INVERSE_STEPS", 40)
    monkeypatch.setattr(iterative_inverse, "__defaults__", (40,))
    q, k, v = draw(8)
    mask = torch.arange(8) < torch.tensor([8, 3])[:, None]
    found = nystrom_attention(3 * q, 3 * k, v, 16, mask)
    torch.testing.assert_close(found, softmax_attention(3 * q, 3 * k, v, mask), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("length", [3, 10, 17])
def test_a_padded_row_is_the_row_alone(draw, length):
    """A landmark that a short row does not have is as if it were never asked for."""
    q, k, v = draw(20)
    mask = (torch.arange(20) < torch.tensor([20, length])[:, None]).contiguous()
    found = nystrom_attention(q, k, v, 4, mask)[1, :, :length]
    alone = [x[1:, :, :length] for x in (q, k, v)]
    wanted = nystrom_attention(*alone, min(4, length), torch.ones(1, length, dtype=torch.bool))[0]
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_a_row_without_a_token_is_finite_both_ways(draw):
    inputs = [x.float().requires_grad_() for x in draw(5)]
    nystrom_attention(*inputs, 4, torch.zeros(2, 5, dtype=torch.bool)).sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in inputs)
