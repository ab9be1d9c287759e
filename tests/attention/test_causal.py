"""Causal attention against loops over pairs, and against attention in both directions on each prefix."""

import math

import pytest
import torch

from rmaat import RmaatConfig
from rmaat.attention.base import build_mixer
from rmaat.attention.causal import CausalPositions, causal_sums, empty_sums
from rmaat.attention.vla import advance_least_squares, empty_least_squares, reference_variational_linear_attention

MEMORY, TOKENS = 3, 150


def whole(mask_BN, memory):
    """The positions of a whole segment: memory, tokens, memory."""
    positions = mask_BN.shape[1]
    return CausalPositions(torch.arange(positions)[None], mask_BN, slice(memory, positions - memory))


def pieces(positions, sizes):
    start = 0
    for size in sizes:
        yield start, start + size, positions.block(start, start + size)
        start += size


def pairwise(q, k, v, mask_BN, rates):
    """The sums pair by pair, with Python's numbers."""
    batch, heads, n, _ = k.shape
    tokens = range(MEMORY, n - MEMORY)
    read = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for b in range(batch):
        for h in range(heads):
            for i in range(n):
                for j in range(i + 1):
                    if mask_BN[b, j]:
                        decays = rates is not None and i in tokens and j in tokens
                        weight = math.exp(-float(rates[h]) * (i - j)) if decays else 1.0
                        read[b, h, i] += weight * (q[b, h, i] @ k[b, h, j]) * v[b, h, j]
    return read


@pytest.mark.parametrize("rates", [None, [0.0, 0.3, 1.1]], ids=["plain", "decayed"])
@pytest.mark.parametrize("sizes", [[26], [1] * 26, [5, 9, 12]], ids=["at once", "one by one", "pieces"])
def test_sums_are_those_of_a_loop_over_pairs(draw, rates, sizes):
    q, k, v = draw(26)
    rate = None if rates is None else torch.tensor(rates, dtype=q.dtype)
    mask_BN = torch.ones(len(q), 26, dtype=torch.bool)
    # The second row has padding behind its tokens.
    mask_BN[1, 15 : 26 - MEMORY] = False
    k = k.masked_fill(~mask_BN[:, None, :, None], 0)
    carried = empty_sums(len(q), (*k.shape[1:2], k.shape[-1], v.shape[-1]), rate is not None, q)
    found = []
    for start, stop, positions in pieces(whole(mask_BN, MEMORY), sizes):
        read, carried = causal_sums(*(x[:, :, start:stop] for x in (q, k, v)), positions, rate, carried)
        found.append(read)
    torch.testing.assert_close(torch.cat(found, 2), pairwise(q, k, v, mask_BN, rate), rtol=1e-12, atol=1e-12)


KINDS = [
    {"attention_type": "softmax"},
    {"attention_type": "linear"},
    {"attention_type": "s4d"},
    {"attention_type": "astro"},
    {"attention_type": "astro", "hebbian_scale": None, "presynaptic_plasticity": False},
    {"attention_type": "astro", "hebbian_astro": False, "calcium_exponent": 1.0, "unit_features": True},
    {"attention_type": "astro", "attention_decay": "learned", "rotary_positions": True},
    {"attention_type": "astro", "attention_decay": "fixed", "reading_norm": True},
]


def named(settings):
    return "-".join(map(str, settings.values()))


@pytest.mark.parametrize("settings", KINDS, ids=named)
def test_each_position_reads_as_the_last_one_of_attention_over_its_prefix(settings):
    torch.manual_seed(0)
    # Without memory: attention in both directions exempts other positions from decay.
    config = RmaatConfig(
        **settings, causal=True, retention_schedule="none", hidden_size=16, num_attention_heads=2,
        num_memory_tokens=0, max_seq_len=TOKENS, num_segments=1,
    )  # fmt: skip
    mixer = build_mixer(config).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    x, mask_BN = torch.randn(2, TOKENS, 16, dtype=torch.float64), torch.ones(2, TOKENS, dtype=torch.bool)
    carried, found = mixer.start(2, x), []
    for start, stop, positions in pieces(whole(mask_BN, 0), [130, 1, 1, 18]):
        read, carried = mixer.advance(x[:, start:stop], positions, mixer.shared(), carried)
        found.append(read)
    found = torch.cat(found, 1)
    for i in (0, 1, 7, 64, 129, 130, 131, TOKENS - 1):
        wanted = mixer(x[:, : i + 1], mask_BN[:, : i + 1], mixer.shared())[:, -1]
        torch.testing.assert_close(found[:, i], wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sizes", [[70], [1] * 70, [3, 66, 1]], ids=["at once", "one by one", "pieces"])
def test_least_squares_in_pieces_are_the_recurrence(draw, sizes):
    q, k, v = draw(70)
    mask_BN = torch.rand(len(q), 70) < 0.8
    mask_BN[:, 0] = True
    carried, found = empty_least_squares(*q.shape[:2], q.shape[-1], v.shape[-1], 0.7, q), []
    for start, stop, positions in pieces(whole(mask_BN, 0), sizes):
        read, carried = advance_least_squares(*(x[:, :, start:stop] for x in (q, k, v)), positions.mask, carried)
        found.append(read)
    wanted = reference_variational_linear_attention(q, k, v, 0.7, mask_BN)
    torch.testing.assert_close(torch.cat(found, 2), wanted, rtol=1e-8, atol=1e-10)
