"""Astromorphic attention against the published formulas, written out row by row in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaat.attention.astro import reference_astromorphic_attention
from rmaat.ops import astromorphic_attention, unit_read_scale

F64 = torch.float64


def naive(q, k, v, r, alpha, scale, mask):
    """RMAAT.md section 2, one sample, head and row at a time; phi(x) = x + 1 above 0, e^x below."""

    def phi(x):
        return torch.where(x > 0, x + 1, x.exp())

    batch, heads, n, m = q.shape
    out = torch.zeros(batch, heads, n, v.shape[-1], dtype=q.dtype)
    for b in range(batch):
        rows = [t for t in range(n) if mask is None or mask[b, t]]
        for h in range(heads):
            hebbian = torch.zeros(m, v.shape[-1], dtype=q.dtype)
            keys = torch.zeros(m, dtype=q.dtype)
            for t in rows:
                hebbian = hebbian + torch.outer(phi(k[b, h, t]), v[b, h, t]) / (scale or m)
                if r is not None:
                    hebbian = hebbian + torch.outer(phi(r[h, t]), v[b, h, t]) / (scale or m)
                keys = keys + phi(k[b, h, t])
            g = keys**alpha
            for t in range(n):
                out[b, h, t] = phi(q[b, h, t]) @ hebbian / (phi(q[b, h, t]) @ g)
    return out


def inputs(batch=2, heads=2, n=9, m=4, d=3, dtype=F64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, dtype=F64, generator=generator).to(dtype).requires_grad_()

    return draw(batch, heads, n, m), draw(batch, heads, n, m), draw(batch, heads, n, d), draw(heads, n, m)


def relative(found, wanted):
    return ((found - wanted).norm() / wanted.norm().clamp_min(1e-300)).item()


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    n=st.integers(1, 12),
    m=st.integers(1, 5),
    d=st.integers(1, 5),
    alpha=st.floats(0.1, 1.5),
    scale=st.one_of(st.none(), st.floats(0.1, 100)),
    masked=st.booleans(),
)
def test_equals_the_formulas(batch, heads, n, m, d, alpha, scale, masked):
    q, k, v, r = inputs(batch, heads, n, m, d)
    mask = None
    if masked:
        mask = torch.arange(n) < torch.arange(1, batch + 1)[:, None]
    found = astromorphic_attention(q, k, v, r, alpha, scale, mask)
    assert relative(found, naive(q, k, v, r, alpha, scale, mask)) < 1e-12


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("astrocyte", [False, True])
@pytest.mark.parametrize("plasticity", [False, True])
@pytest.mark.parametrize("scale", [None, 0.7, torch.tensor([3.0, 0.7], dtype=F64)], ids=str)
def test_it_is_its_reference(assert_same, masked, astrocyte, plasticity, scale):
    mask = torch.arange(9) < torch.tensor([9, 5])[:, None] if masked else None

    def form(attention):
        def attend(q, k, v, r=None):
            return attention(q, k, v, r, 0.3, scale, mask, presynaptic_plasticity=plasticity)

        return attend

    forms = form(astromorphic_attention), form(reference_astromorphic_attention)
    assert_same(*forms, inputs() if astrocyte else inputs()[:3])


def test_gradients_equal_those_of_the_formulas():
    tensors = inputs()
    mask = torch.arange(9) < torch.tensor([9, 5])[:, None]
    cotangent = torch.randn(2, 2, 9, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(astromorphic_attention(*tensors, mask=mask), tensors, cotangent)
    wanted = torch.autograd.grad(naive(*tensors, 0.25, None, mask), tensors, cotangent)
    for one, other in zip(found, wanted, strict=True):
        assert relative(one, other) < 1e-12


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("astrocyte", [False, True])
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("plasticity", [False, True])
def test_gradients_equal_finite_differences(masked, astrocyte, sigmoid, plasticity):
    q, k, v, r = inputs()
    mask = torch.arange(9) < torch.tensor([9, 5])[:, None] if masked else None
    form = {"hebbian_sigmoid": sigmoid, "presynaptic_plasticity": plasticity}

    def attention(q, k, v, r=None):
        return astromorphic_attention(q, k, v, r, 0.3, 2.0, mask, **form)

    assert torch.autograd.gradcheck(attention, (q, k, v, r) if astrocyte else (q, k, v), rtol=1e-6)


def test_what_is_kept_for_the_gradient_is_the_inputs_and_small():
    n, m, d = 512, 16, 16
    q, k, v, r = inputs(1, 2, n, m, d, torch.float32)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        astromorphic_attention(q, k, v, r)
    own = sum(x.nbytes for place, x in kept.items() if place not in {y.data_ptr() for y in (q, k, v, r)})
    assert own == 4 * 2 * (m * d + m + n) + 4  # the divisor of H is one more number


def test_without_astrocyte_it_is_linear_attention():
    """alpha 1, divisor 1, no R: softmax's kernel replaced by phi(q) . phi(k) and normalised to weights that sum to 1."""
    q, k, v, _ = inputs(n=30)
    phi_q, phi_k = torch.nn.functional.elu(q) + 1, torch.nn.functional.elu(k) + 1
    weights = phi_q @ phi_k.mT
    weights = weights / weights.sum(-1, keepdim=True)
    found = astromorphic_attention(q, k, v, None, alpha=1.0, hebbian_scale=1.0)
    assert relative(found, weights @ v) < 1e-12


def test_masked_positions_are_never_read():
    q, k, v, r = (x.detach() for x in inputs())
    mask = torch.arange(9) < torch.tensor([4, 7])[:, None]
    clean = astromorphic_attention(q, k, v, r, mask=mask)
    spoilt = [torch.where(mask[:, None, :, None], x, torch.nan) for x in (k, v)]
    found = astromorphic_attention(q, *spoilt, r, mask=mask)
    assert torch.equal(found, clean)


def test_a_row_without_a_token_is_finite_with_finite_gradients():
    tensors = inputs()
    mask = torch.tensor([[True] * 9, [False] * 9])
    out = astromorphic_attention(*tensors, mask=mask)
    assert torch.isfinite(out).all()
    for grad in torch.autograd.grad(out.sum(), tensors):
        assert torch.isfinite(grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_summed_in_float32(dtype):
    """Sums over 70,000 keys of about 1 overflow float16 and stall in bfloat16 if made there."""
    q, k, v, r = inputs(1, 1, 70_000, 4, 2, dtype)
    found = astromorphic_attention(q, k, v, r)
    wanted = astromorphic_attention(*(x.to(F64) for x in (q, k, v, r)))
    assert found.dtype == dtype
    assert relative(found.to(F64), wanted) < 2 * torch.finfo(dtype).eps


def test_autocast_does_not_narrow_the_sums():
    q, k, v, r = inputs(1, 2, 3000, 8, 4, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = astromorphic_attention(q, k, v, r)
    assert found.dtype == torch.float32
    assert relative(found.to(F64), astromorphic_attention(*(x.to(F64) for x in (q, k, v, r)))) < 1e-5


def test_refuses_shapes_that_do_not_fit():
    q, k, v, r = inputs()
    with pytest.raises(ValueError, match="r must be"):
        astromorphic_attention(q, k, v, r[:, 1:])
    with pytest.raises(ValueError, match="mask must be"):
        astromorphic_attention(q, k, v, r, mask=torch.ones(2, 5, dtype=torch.bool))


def test_a_divisor_of_another_shape_is_refused():
    q, k, v, r = inputs()
    with pytest.raises(ValueError, match=r"a number or \(2,\)"):
        astromorphic_attention(q, k, v, r, hebbian_scale=torch.ones(3, dtype=F64))


@pytest.mark.parametrize("n", [16, 256, 4096])
@pytest.mark.parametrize("m", [4, 64])
@pytest.mark.parametrize("alpha", [0.15, 0.25, 1.0])
@pytest.mark.parametrize("astro", [True, False])
@pytest.mark.parametrize("plasticity", [True, False])
def test_the_weights_of_a_reading_sum_to_about_one(n, m, alpha, astro, plasticity):
    """A reading of values that are all 1 is the sum of its weights; half of the second sample is padding."""
    q, k, _, r = inputs(2, 16, n, m, 1)
    v = torch.ones(2, 16, n, 1, dtype=F64)
    mask = torch.arange(n) < torch.tensor([n, n // 2])[:, None]
    scale_B = unit_read_scale(mask.sum(1).double(), m, alpha, hebbian_astro=astro, presynaptic_plasticity=plasticity)
    weight = astromorphic_attention(
        q, k, v, r if astro else None, alpha, scale_B, mask, presynaptic_plasticity=plasticity
    )
    assert weight.mean((1, 2, 3)).sub(1).abs().max() < 0.2


@pytest.mark.parametrize("plasticity", [True, False])
@pytest.mark.parametrize("sigmoid", [True, False])
def test_what_is_compiled_equals_what_is_not(sigmoid, plasticity):
    """The two have code of their own: one is for the compiler to differentiate, the other has its backward pass written out."""
    tensors = inputs()
    mask = torch.arange(9) < torch.tensor([9, 5])[:, None]
    cotangent = torch.randn(2, 2, 9, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    switches = {"hebbian_sigmoid": sigmoid, "presynaptic_plasticity": plasticity}

    def attend(*given):
        return astromorphic_attention(*given, mask=mask, **switches)

    found_out, wanted_out = torch.compile(attend, backend="eager")(*tensors), attend(*tensors)
    assert relative(found_out, wanted_out) < 1e-12
    found, wanted = (torch.autograd.grad(out, tensors, cotangent) for out in (found_out, wanted_out))
    for one, other in zip(found, wanted, strict=True):
        assert relative(one, other) < 1e-12


@pytest.mark.parametrize("stride", [1, 4, 30])
def test_relative_positions_begin_at_order_one_whatever_the_stride(make_mixer, stride):
    """Positions of one column stand in the same relation to all others; a last column may be short."""
    mixer = make_mixer("astro", basis_stride=stride, max_seq_len=510)
    assert mixer.basis.shape == (2, 4, -(-512 // stride))
    r = mixer.shared()
    assert r.shape == (2, 512, 4)
    assert torch.equal(r[:, 0], r[:, min(stride, 512) - 1])
    assert 0.3 < r.std() < 3


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("plasticity", [False, True])
@pytest.mark.parametrize("scale", [None, 0.7, "auto"])
def test_the_switches_of_astromorphic_attention_are_the_formulas(
    make_mixer, positions, mask, scale, sigmoid, plasticity
):
    """H = (phi(K) + phi(R))^T V / s, through a sigmoid or not; phi(Q) H, over phi(Q) g^T or not."""
    mixer = make_mixer("astro", hebbian_sigmoid=sigmoid, presynaptic_plasticity=plasticity, hebbian_scale=scale)
    x = positions[1:, :6]
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
    found = mixer(positions, mask, mixer.shared())[1:, :6]
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
