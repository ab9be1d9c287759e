"""Nyström attention: its inverse, its landmarks, and softmax where every token is a landmark."""

import pytest
import torch
from transformers import NystromformerConfig
from transformers.models.nystromformer.modeling_nystromformer import NystromformerSelfAttention

from rmaat.attention.nystromformer import (
    iterative_inverse,
    reference_nystrom_attention,
    segment_mean_weights,
)
from rmaat.ops import nystrom_attention, softmax_attention


@pytest.mark.parametrize("landmarks", [1, 3, 5])
def test_it_is_its_reference(draw, assert_same, monkeypatch, landmarks):
    """With enough steps; one row has fewer tokens than landmarks. The inverse costs half of the digits."""
    monkeypatch.setattr("rmaat.attention.nystromformer.INVERSE_STEPS", 40)
    q, k, v = draw(13, batch=3)
    mask = torch.arange(13) < torch.tensor([13, 6, 2])[:, None]
    forms = nystrom_attention, reference_nystrom_attention
    assert_same(*(lambda *x, form=form: form(*x, landmarks, mask) for form in forms), (3 * q, 3 * k, v), 1e-5)


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
    monkeypatch.setattr("rmaat.attention.nystromformer.INVERSE_STEPS", 40)
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


def test_nystromformer_is_that_of_hugging_face(make_mixer, positions, mask):
    """On whole runs of tokens, with the same weights."""
    mixer = make_mixer("nystromformer", max_seq_len=10)
    config = NystromformerConfig(
        hidden_size=8,
        num_attention_heads=2,
        num_landmarks=4,
        segment_means_seq_len=12,
        conv_kernel_size=3,
        attention_probs_dropout_prob=0.0,
    )
    oracle = NystromformerSelfAttention(config).double().eval()
    with torch.no_grad():
        weights = mixer.query_key_value.weight.chunk(3)
        for module, weight in zip((oracle.query, oracle.key, oracle.value), weights, strict=True):
            module.weight.copy_(weight)
            module.bias.zero_()
        oracle.conv.weight.copy_(mixer.convolution[:, None, :, None])
    together = oracle.iterative_inv

    def one_by_one(kernel_BHLL):
        """That class starts all matrices from one coefficient; here each has its own, which is its exact option."""
        return torch.stack([torch.cat([together(x[None, None]) for x in row], 1)[0] for row in kernel_BHLL])

    oracle.iterative_inv = one_by_one
    x = positions[:, :12]
    wanted = mixer.output(oracle(x)[0])
    torch.testing.assert_close(mixer(x, mask[:1, :12], None), wanted, rtol=1e-9, atol=1e-11)
