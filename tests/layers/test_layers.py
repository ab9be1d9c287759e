"""Dropout masks, positions, readouts and the block, each against an independent statement of what it is."""

import math

import pytest
import torch

from rmaat.layers import (
    READOUT_MASKS,
    EncoderBlock,
    ShortConvolution,
    apply_dropout,
    draw_dropout_masks,
    sinusoidal_positions,
)
from rmaat.ops import astromorphic_attention, relative_positions
from rmaat.settings import ModelSettings

CPU = torch.device("cpu")


@pytest.mark.parametrize("drop", [0.05, 0.1, 0.5])
def test_masks_drop_as_often_as_asked(drop):
    mask = draw_dropout_masks(3, (1000, 1001), drop, CPU)
    sigma = math.sqrt(drop * (1 - drop) / mask.numel())
    assert abs(mask.double().mean().item() - (1 - drop)) < 5 * sigma
    # Neighbours come from one 64-bit word: they must be independent of each other.
    flat = mask.flatten().double() - mask.double().mean()
    for lag in (1, 2, 3, 4, 1001):
        assert abs((flat[lag:] * flat[:-lag]).mean().item()) < 5 * drop * (1 - drop) / math.sqrt(mask.numel())


def test_masks_are_a_function_of_the_seed_alone():
    state = torch.get_rng_state()
    first = draw_dropout_masks(7, (5, 6, 7), 0.3, CPU)
    assert torch.equal(first, draw_dropout_masks(7, (5, 6, 7), 0.3, CPU))
    assert not torch.equal(first, draw_dropout_masks(8, (5, 6, 7), 0.3, CPU))
    assert torch.equal(state, torch.get_rng_state())


def test_dropout_keeps_the_mean():
    x = torch.full((4, 4), 3.0)
    mask = torch.eye(4, dtype=torch.bool)
    torch.testing.assert_close(apply_dropout(x, mask, 0.75), 12.0 * torch.eye(4))
    assert apply_dropout(x, None, 0.75) is x


def test_positions_are_sines_and_cosines_of_geometric_rates():
    table = sinusoidal_positions(50, 8, torch.zeros(1, dtype=torch.float64))
    for position in (0, 1, 49):
        for pair in range(4):
            angle = position / 10_000 ** (2 * pair / 8)
            assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)


def test_a_table_of_positions_from_inference_serves_training():
    with torch.inference_mode():
        sinusoidal_positions(7, 4, torch.zeros(1))
    weight = torch.ones(4, requires_grad=True)
    (sinusoidal_positions(7, 4, torch.zeros(1)) * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize(
    ("readout", "positions"),
    [("mean", [0, 1, 2, 3, 4]), ("first", [2]), ("last", [4]), ("memory", [0, 1]), ("running_mean", [2, 3, 4])],
)
def test_readouts_choose_their_positions(readout, positions):
    """Two memory positions, then three tokens and two pads."""
    mask = torch.tensor([[True] * 5 + [False] * 2])
    assert READOUT_MASKS[readout](mask, 2)[0].nonzero().flatten().tolist() == positions


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_block_is_the_published_layer(norm_first):
    torch.manual_seed(0)
    settings = ModelSettings(
        hidden_size=8,
        num_attention_heads=2,
        intermediate_size=12,
        max_seq_len=12,
        num_segments=2,
        norm_first=norm_first,
        hebbian_scale=None,
    )
    block = EncoderBlock(settings).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x, mask = torch.randn(2, 7, 8, dtype=torch.float64), torch.arange(7) < torch.tensor([7, 4])[:, None]
    mixer = block.mixer

    def attend(y):
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in mixer.query_key_value(y).chunk(3, -1))
        r = relative_positions(mixer.basis, 0.1)
        return mixer.output(astromorphic_attention(q, k, v, r, mask=mask).transpose(1, 2).flatten(-2))

    def norm(y, module):
        centred = y - y.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * module.weight + module.bias

    def feed(y):
        hidden = block.expand(y)
        return block.contract(hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))))

    if norm_first:
        wanted = x + attend(norm(x, block.mixer_norm))
        wanted = wanted + feed(norm(wanted, block.feed_forward_norm))
    else:
        wanted = norm(x + attend(x), block.mixer_norm)
        wanted = norm(wanted + feed(wanted), block.feed_forward_norm)
    torch.testing.assert_close(block(x, mask, mixer.shared(), None), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_the_short_convolution_is_its_sum_over_neighbouring_tokens(size):
    """One memory position, four tokens and a pad, then a row with memory behind its tokens."""
    torch.manual_seed(0)
    layer = ShortConvolution(3, size).double()
    torch.nn.init.normal_(layer.taps)
    x, tokens = torch.randn(2, 6, 3, dtype=torch.float64), torch.tensor([[0, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]]).bool()
    wanted = x.clone()
    for b in range(2):
        for n in range(6):
            for j in range(size):
                near = n + j - size // 2
                if 0 <= near < 6 and tokens[b, n] and tokens[b, near]:
                    wanted[b, n] += layer.taps[:, j] * x[b, near]
    torch.testing.assert_close(layer(x, tokens), wanted, rtol=1e-12, atol=1e-12)
