"""Astromorphic attention beyond the paper, against the formulas row by row and N x N, in float64."""

import math

import pytest
import torch

from rmaat.attention.astro_extended import (
    MEAN_SQUARE_FEATURE,
    Extension,
    decay_matrix,
    decayed_attention,
    decayed_sums,
    extended_attention,
    reference_decayed_attention,
    rotated,
    rotations,
)
from rmaat.attention.astro_mixer import initial_decay_rates
from rmaat.errors import UserError
from rmaat.ops import astromorphic_attention
from rmaat.settings import ModelSettings

F64 = torch.float64
RATES = torch.tensor([0.0, 0.01, 0.9], dtype=F64)
ROTATION = rotations(15, 5, RATES)


@pytest.mark.parametrize("memory", [0, 1, 5])
@pytest.mark.parametrize("tokens", [2, 64, 65, 300])
def test_decayed_attention_is_its_reference(assert_same, draw, tokens, memory):
    q, k, v = draw(memory + tokens)
    rate = RATES + 0.001
    assert_same(
        lambda *x: decayed_attention(*x, memory),
        lambda *x: reference_decayed_attention(*x, memory),
        (q, k, v, rate),
    )


def test_decayed_attention_at_8192_positions_is_two_recurrences():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 8_192, 2, dtype=F64) for _ in range(3))
    rate = torch.tensor([0.003], dtype=F64)
    expected = torch.zeros(8_192, 2, dtype=F64)
    factor = math.exp(-0.003)
    for order in (range(8_192), reversed(range(8_192))):
        state = torch.zeros(2, 2, dtype=F64)
        for i in order:
            state = state * factor
            expected[i] += q[0, 0, i] @ state
            state = state + torch.outer(k[0, 0, i], v[0, 0, i])
    expected += (q * k).sum(-1, keepdim=True)[0, 0] * v[0, 0]
    result = decayed_attention(q, k, v, rate, 0)[0, 0]
    assert (result - expected).norm() < 1e-12 * expected.norm()


@pytest.mark.parametrize("memory", [0, 3])
def test_decayed_sums_are_a_product_with_the_matrix(assert_same, draw, memory):
    z, _, _ = draw(200)
    assert_same(
        lambda z, rate: decayed_sums(z, rate, memory),
        lambda z, rate: decay_matrix(200, rate, memory) @ z,
        (z, RATES + 0.001),
    )


def row_by_row(q, k, v, r, alpha, scale, mask, extension, plasticity):
    """The formulas at the top of the module, one sample, head and row at a time."""

    def phi(x):
        y = torch.where(x > 0, x + 1, x.exp())
        return y / y.norm() if extension.unit_features else y

    def turned(x, position):
        if extension.rotation is None:
            return x
        half = len(x) // 2
        pairs = torch.complex(x[:half], x[half : 2 * half])
        angles = torch.tensor([position / 10_000 ** (i / half) for i in range(half)], dtype=F64)
        pairs = pairs * torch.polar(torch.ones(half, dtype=F64), angles)
        return torch.cat([pairs.real, pairs.imag, x[2 * half :]])

    batch, heads, n, _ = q.shape
    out = torch.zeros(batch, heads, n, v.shape[-1], dtype=F64)
    for b in range(batch):
        rows = [j for j in range(n) if mask[b, j]]
        for h in range(heads):
            for i in range(n):
                query = phi(q[b, h, i])
                reading, sums = torch.zeros(v.shape[-1], dtype=F64), torch.zeros_like(query)
                for j in rows:
                    memory = min(i, j) < extension.num_memory
                    rate = 0 if memory or extension.rate is None else extension.rate[h]
                    decay = math.exp(-rate * abs(i - j))
                    key = phi(k[b, h, j])
                    write = turned(key, j) + (0 if r is None else phi(r[h, j]))
                    reading += decay * (turned(query, i) @ write) * v[b, h, j]
                    sums += decay * key
                if extension.gain is not None:
                    out[b, h, i] = reading / (reading.square().mean() + 1e-6).sqrt() * extension.gain[h, 0]
                else:
                    response = query @ sums**alpha if plasticity else 1
                    out[b, h, i] = reading / scale[b, 0, i, 0] / response
    return out


@pytest.mark.parametrize("plasticity", [True, False])
@pytest.mark.parametrize("astrocyte", [True, False])
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"rate": RATES},
        {"unit_features": True},
        {"rotation": ROTATION},
        {"gain": torch.full((3, 1, 6), 1.5, dtype=F64)},
        {"rate": RATES, "unit_features": True, "rotation": ROTATION, "gain": torch.rand(3, 1, 6, dtype=F64)},
        {"rate": RATES, "unit_features": True, "rotation": ROTATION},
    ],
    ids=lambda parts: "+".join(parts) or "none",
)
def test_equals_the_formulas(draw, parts, astrocyte, plasticity):
    q, k, v = draw(11, m=5)
    r = torch.randn(3, 11, 5, dtype=F64) if astrocyte else None
    mask = torch.arange(11) < torch.tensor([11, 6])[:, None]
    scale = 1 + torch.rand(2, 1, 11, 1, dtype=F64)
    extension = Extension(2, **parts)
    result = extended_attention(q, k, v, r, 0.3, scale, mask, extension, presynaptic_plasticity=plasticity)
    expected = row_by_row(q, k, v, r, 0.3, scale, mask, extension, plasticity)
    assert (result - expected).norm() < 1e-12 * expected.norm()


def test_without_parts_it_is_the_papers_attention(assert_same, draw):
    q, k, v = draw(70)
    r = torch.randn(3, 70, 4, dtype=F64)
    mask = torch.arange(70) < torch.tensor([70, 33])[:, None]
    scale = torch.tensor(1.7, dtype=F64)
    assert_same(
        lambda *x: extended_attention(*x, 0.25, scale, mask, Extension(2)),
        lambda *x: astromorphic_attention(*x, 0.25, 1.7, mask),
        (q, k, v, r),
    )


def test_rotated_products_depend_on_the_distance_alone():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 7, dtype=F64)
    table = rotations(20, 7, q)
    products = rotated(q.expand(20, 7), table) @ rotated(k.expand(20, 7), table).mT
    for diagonal in (-4, 0, 5):
        values = products.diagonal(diagonal)
        assert (values - values[0]).abs().max() < 1e-12
    assert products.std() > 0.1


def test_the_mean_square_of_a_feature():
    x = torch.linspace(-12, 12, 240_001, dtype=F64)
    density = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    phi = torch.where(x > 0, x + 1, x.exp())
    assert torch.trapezoid(density * phi**2, x).item() == pytest.approx(MEAN_SQUARE_FEATURE, rel=1e-9)


@pytest.mark.parametrize("heads", [2, 4, 8])
def test_half_lives_begin_between_4_tokens_and_a_segment(heads):
    rates = initial_decay_rates(heads, 512).double()
    assert rates[0] == 0
    half_lives = math.log(2) / rates[1:]
    assert half_lives[0].item() == pytest.approx(4, rel=1e-5)
    if heads > 2:
        assert half_lives[-1].item() == pytest.approx(512, rel=1e-5)
        ratios = half_lives[1:] / half_lives[:-1]
        assert (ratios / ratios[0] - 1).abs().max() < 1e-4


VARIANTS = [
    {"attention_decay": "fixed"},
    {"attention_decay": "learned"},
    {"reading_norm": True},
    {"unit_features": True},
    {"rotary_positions": True},
    {"attention_decay": "learned", "reading_norm": True, "unit_features": True, "rotary_positions": True},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda settings: "+".join(settings))
def test_padding_is_inert(make_mixer, positions, mask, settings):
    mixer = make_mixer("astro", **settings)
    changed = positions.where(mask[..., None], 100 * torch.randn_like(positions))
    results = [mixer(x, mask, mixer.shared()) for x in (positions, changed)]
    torch.testing.assert_close(results[0][mask], results[1][mask], rtol=1e-10, atol=1e-12)
    alone = mixer(positions[1:, :6], mask[1:, :6], mixer.shared())
    torch.testing.assert_close(results[0][1:, :6], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda settings: "+".join(settings))
def test_narrow_types_stay_near_float32(make_mixer, positions, mask, settings):
    mixer, x = make_mixer("astro", torch.float32, **settings), positions.float()
    expected = mixer(x, mask, mixer.shared())[mask]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = mixer(x, mask, mixer.shared())[mask]
    assert (result - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("decay", ["none", "fixed"])
@pytest.mark.parametrize("switches", [{}, {"hebbian_astro": False}, {"presynaptic_plasticity": False}], ids=str)
@pytest.mark.parametrize("alpha", [0.25, 1.0])
def test_the_weights_of_a_reading_sum_to_about_one(make_mixer, unit, decay, switches, alpha):
    sizes = {"hidden_size": 128, "max_seq_len": 300, "num_memory_tokens": 2, "calcium_exponent": alpha}
    mixer = make_mixer("astro", **sizes, **switches, unit_features=unit, attention_decay=decay)
    torch.manual_seed(0)
    q, k = torch.randn(2, 2, 2, 302, 64, dtype=F64)
    ones = torch.ones(2, 2, 302, 1, dtype=F64)
    shared = mixer.shared()
    # R is of another size than keys are at the start; give it the same distribution.
    r = None if shared is None else torch.randn_like(shared)
    mask = torch.arange(302) < torch.tensor([302, 30])[:, None]
    weight = mixer.attend(q, k, ones, r, mask)[mask[:, None].expand(-1, 2, -1)]
    assert 0.8 < weight.mean() < 1.25
    assert weight.std() < 0.25


def test_learned_rates_are_trained_and_fixed_ones_have_no_parameter(make_mixer, positions, mask):
    learned, fixed = (make_mixer("astro", attention_decay=kind) for kind in ("learned", "fixed"))
    assert sum(p.numel() for p in learned.parameters()) == sum(p.numel() for p in fixed.parameters()) + 1
    fixed.load_state_dict({k: v for k, v in learned.state_dict().items() if k != "log_rate"})
    results = [mixer(positions, mask, mixer.shared()) for mixer in (learned, fixed)]
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)
    results[0].square().sum().backward()
    assert learned.log_rate.grad.abs().item() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention_decay": "sometimes"}, "none"),
        ({"attention_decay": "fixed", "num_attention_heads": 1}, "num_attention_heads >= 2"),
        ({"attention_decay": "fixed", "memory_layout": "back"}, "front"),
        ({"attention_decay": "fixed", "attention_type": "softmax"}, "attention_type 'astro' only"),
        ({"hebbian_sigmoid": True, "reading_norm": True}, "excludes"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(UserError, match=message):
        ModelSettings(**settings).check_model()
