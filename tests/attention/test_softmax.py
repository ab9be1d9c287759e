"""Softmax attention against the definition and against PyTorch's own attention module."""

import pytest
import torch

from rmaat.attention.softmax import SoftmaxMixer, reference_softmax_attention
from rmaat.ops import softmax_attention
from rmaat.settings import ModelSettings


@pytest.mark.parametrize("mask", [None, torch.arange(7) < torch.tensor([7, 3])[:, None]], ids=["whole", "padded"])
def test_it_is_its_reference(draw, assert_same, mask):
    forms = (lambda *x: softmax_attention(*x, mask), lambda *x: reference_softmax_attention(*x, mask))
    assert_same(*forms, draw(7))


def test_a_row_without_a_token_is_finite():
    q = torch.ones(1, 1, 3, 2)
    assert torch.isfinite(softmax_attention(q, q, q, torch.zeros(1, 3, dtype=torch.bool))).all()


def test_the_mixer_equals_pytorchs_multi_head_attention():
    torch.manual_seed(0)
    mixer = SoftmaxMixer(ModelSettings(hidden_size=16, num_attention_heads=4)).double()
    oracle = torch.nn.MultiheadAttention(16, 4, bias=True, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(mixer.query_key_value.weight)
        oracle.in_proj_bias.zero_()
        oracle.out_proj.weight.copy_(mixer.output.weight)
        oracle.out_proj.bias.copy_(mixer.output.bias)
    x = torch.randn(3, 11, 16, dtype=torch.float64)
    mask = torch.arange(11) < torch.tensor([11, 6, 2])[:, None]
    wanted, _ = oracle(x, x, x, key_padding_mask=~mask, need_weights=False)
    torch.testing.assert_close(mixer(x, mask, None), wanted, rtol=1e-10, atol=1e-12)
