"""Mixers as modules against libraries and plain statements of what they are, in float64."""

import pytest
import torch
from torch import nn
from transformers import NystromformerConfig
from transformers.models.nystromformer.modeling_nystromformer import NystromformerSelfAttention

from rmaat.layers import MIXERS
from rmaat.models.recurrent import RmaatPreTrainedModel
from rmaat.ops import variational_linear_attention
from rmaat.settings import ATTENTION_TYPES, ModelSettings

LENGTHS = torch.tensor([13, 6])
MASK = torch.arange(13) < LENGTHS[:, None]


def make(attention_type, dtype=torch.float64, **settings):
    """A mixer on 13 positions of width 8, two heads, at its initial values."""
    small = {"num_landmarks": 4, "conv_kernel_size": 3, "linformer_size": 5, "state_size": 6, "num_random_features": 7}
    given = {"hidden_size": 8, "num_attention_heads": 2, "num_segments": 1, "max_seq_len": 11, "num_memory_tokens": 2}
    torch.manual_seed(0)
    mixer = MIXERS[attention_type](ModelSettings(attention_type=attention_type, **{**small, **given, **settings}))
    initialise = RmaatPreTrainedModel._init_weights
    mixer.apply(lambda module: initialise(None, module))
    return mixer.to(dtype)


def positions(dtype=torch.float64):
    return torch.randn(2, 13, 8, dtype=dtype, generator=torch.Generator().manual_seed(1))


def test_the_names_are_those_of_the_settings():
    assert MIXERS.names() == ATTENTION_TYPES


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_what_lies_under_the_mask_changes_no_token(attention_type):
    mixer, x = make(attention_type), positions()
    changed = x.where(MASK[..., None], 100 * torch.randn(2, 13, 8, dtype=torch.float64))
    found, wanted = (mixer(y, MASK, mixer.shared())[MASK] for y in (changed, x))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_bfloat16_autocast_stays_near_float32(attention_type):
    mixer, x = make(attention_type, torch.float32), positions(torch.float32)
    wanted = mixer(x, MASK, mixer.shared())[MASK]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mixer(x, MASK, mixer.shared())[MASK]
    assert (found - wanted).norm() < 0.05 * wanted.norm()


@pytest.mark.parametrize("stride", [1, 4, 30])
def test_relative_positions_begin_at_order_one_whatever_the_stride(stride):
    """Positions of one column stand in the same relation to all others; a last column may be short."""
    mixer = make("astro", basis_stride=stride, max_seq_len=510)
    assert mixer.basis.shape == (2, 4, -(-512 // stride))
    r = mixer.shared()
    assert r.shape == (2, 512, 4)
    assert torch.equal(r[:, 0], r[:, min(stride, 512) - 1])
    assert 0.3 < r.std() < 3


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("plasticity", [False, True])
@pytest.mark.parametrize("scale", [None, 0.7, "auto"])
def test_the_switches_of_astromorphic_attention_are_the_formulas(scale, sigmoid, plasticity):
    """H = (phi(K) + phi(R))^T V / s, through a sigmoid or not; phi(Q) H, over phi(Q) g^T or not."""
    mixer = make("astro", hebbian_sigmoid=sigmoid, presynaptic_plasticity=plasticity, hebbian_scale=scale)
    x = positions()[1:, :6]
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in mixer.query_key_value(x).chunk(3, -1))
    phi_q, phi_k, phi_r = (torch.where(y > 0, y + 1, y.exp()) for y in (q, k, mixer.shared()[:, :6]))
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / (2 * torch.pi) ** 0.5
    mean = torch.trapezoid(torch.where(z > 0, z + 1, z.exp()) * density, z)
    auto = 2 * (mean * 6) ** 0.75 if plasticity else 2 * 4 * mean * mean * 6
    hebbian = (phi_k + phi_r).mT @ v / {None: 4, "auto": auto}.get(scale, scale)
    read = phi_q @ (1 / (1 + (-hebbian).exp()) if sigmoid else hebbian)
    if plasticity:
        read = read / (phi_q @ phi_k.sum(2).pow(0.25)[..., None])
    wanted = mixer.output(read.transpose(1, 2).flatten(-2))
    found = mixer(positions(), MASK, mixer.shared())[1:, :6]
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_nystromformer_is_that_of_hugging_face():
    """On whole runs of tokens, with the same weights."""
    mixer = make("nystromformer", max_seq_len=10)
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
    x = positions()[:, :12]
    wanted = mixer.output(oracle(x)[0])
    torch.testing.assert_close(mixer(x, MASK[:1, :12], None), wanted, rtol=1e-9, atol=1e-11)


def test_linformer_attends_to_learned_sums():
    mixer, x = make("linformer"), positions()
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in mixer.query_key_value(x).chunk(3, -1))
    mixed = torch.zeros(2, 2, 13, 4, dtype=torch.float64)
    for b in range(2):
        n = LENGTHS[b]
        for h in range(2):
            keys, values = (mixer.projection[:, :n] @ y[b, h, :n] for y in (k, v))
            mixed[b, h] = (q[b, h] @ keys.T / 2).softmax(-1) @ values
    wanted = mixer.output(mixed.transpose(1, 2).flatten(-2))
    torch.testing.assert_close(mixer(x, MASK, None), wanted, rtol=1e-10, atol=1e-12)


def multi_head(query, key_value, output):
    """PyTorch's attention module with the weights of three linear maps."""
    oracle = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([query.weight, key_value.weight]))
        oracle.in_proj_bias.zero_()
        oracle.out_proj.weight.copy_(output.weight)
        oracle.out_proj.bias.copy_(output.bias)
    return oracle


def test_luna_packs_the_tokens_and_unpacks_them():
    mixer, x = make("luna", num_memory_tokens=3, max_seq_len=10), positions()
    pack = multi_head(mixer.pack_query, mixer.pack_key_value, mixer.pack_output)
    unpack = multi_head(mixer.unpack_query, mixer.unpack_key_value, mixer.unpack_output)
    packed, tokens = x[:, :3], x[:, 3:]
    packed = pack(packed, tokens, tokens, key_padding_mask=~MASK[:, 3:], need_weights=False)[0]
    tokens = unpack(tokens, packed, packed, need_weights=False)[0]
    torch.testing.assert_close(mixer(x, MASK, None), torch.cat([packed, tokens], 1), rtol=1e-10, atol=1e-12)


def test_performer_draws_its_directions_once():
    mixer = make("performer")
    assert mixer.directions.shape == (7, 4)
    assert "directions" in mixer.state_dict()
    x = positions()
    assert torch.equal(mixer(x, MASK, None), mixer(x, MASK, None))


def test_half_of_the_heads_of_vla_read_backwards():
    """A change at the last token reaches the first one through the second head alone."""
    mixer, x = make("vla"), positions()[1:, :6]
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in mixer.query_key_value(x).chunk(3, -1))
    forward = variational_linear_attention(q[:, :1], k[:, :1], v[:, :1])
    backward = variational_linear_attention(*(y[:, 1:].flip(2) for y in (q, k, v))).flip(2)
    wanted = mixer.output(torch.cat([forward, backward], 1).transpose(1, 2).flatten(-2))
    found = mixer(positions(), MASK, None)[1:, :6]
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_s4d_is_two_recurrences_a_skip_and_a_gate():
    mixer, x = make("s4d"), positions()[1:, :6]
    step, rate = mixer.log_step.exp()[:, None], -mixer.log_decay.exp() + 1j * mixer.frequency
    power, weights = (step * rate).exp(), torch.view_as_complex(mixer.readout)
    state, mixed = torch.zeros(8, 3, dtype=torch.complex128), x[0] * mixer.skip
    for t in range(6):
        state = power * state + (power - 1) / rate * x[0, t, :, None]
        mixed[t] += (2 * weights[0] * state).sum(-1).real
    state = torch.zeros(8, 3, dtype=torch.complex128)
    for t in reversed(range(6)):
        mixed[t] += (2 * weights[1] * state).sum(-1).real
        state = power * state + (power - 1) / rate * x[0, t, :, None]
    value, gate = mixer.output(nn.functional.gelu(mixed)).chunk(2, -1)
    found = mixer(positions(), MASK, mixer.shared())[1, :6]
    torch.testing.assert_close(found, value * gate.sigmoid(), rtol=1e-9, atol=1e-11)
