"""The associative memory against its formulas, number by number."""

import pytest
import torch

from rmaat import RmaatConfig
from rmaat.layers.associative import SMALLEST_NORMALISER, AssociativeMemory, stretched_gate
from rmaat.ops import associative_read, associative_write, delta_read, delta_write


def features(x):
    """DPFP-3 of length 1, (d,) -> (6 d,)."""
    signs = [value.clamp_min(0) for value in x] + [(-value).clamp_min(0) for value in x]
    products = [signs[i] * signs[i - j] for j in (1, 2, 3) for i in range(len(signs))]
    return torch.stack(products) / sum(value**2 for value in products) ** 0.5


def recalled(matrix_PD, keys_P, phi_P):
    overlap = sum(keys_P[p] * phi_P[p] for p in range(len(phi_P)))
    return sum(matrix_PD[p] * phi_P[p] for p in range(len(phi_P))) / max(overlap, SMALLEST_NORMALISER), overlap


def written(k_Md, v_MD, strength_M, matrix_PD, keys_P):
    """One sample's matrix and sum of keys after the writes, each computed from those before."""
    new_PD, new_P = matrix_PD.clone(), keys_P.clone()
    for k_d, v_D, strength in zip(k_Md, v_MD, strength_M, strict=True):
        phi_P = features(k_d)
        previous_D, overlap = recalled(matrix_PD, keys_P, phi_P)
        new_PD += strength * torch.outer(phi_P, v_D - previous_D)
        new_P += min(max(1 - overlap.item(), 0.0), 1.0) * phi_P
    return new_PD, new_P


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("writes", [1, 3])
def test_segments_of_writes_and_reads_are_their_formulas(writes):
    """The first reads are of an empty memory; later keys are new, known or partly known."""
    batch, d, width = 2, 4, 3
    associations = torch.zeros(batch, 6 * d, width + 1, dtype=torch.float64)
    plain = [(torch.zeros(6 * d, width, dtype=torch.float64), torch.zeros(6 * d, dtype=torch.float64))] * batch
    for segment in range(4):
        q, k, v = (
            draw(batch, 5, d, seed=segment),
            draw(batch, writes, d, seed=9),
            draw(batch, writes, width, seed=segment),
        )
        k[:, -1] = draw(batch, d, seed=segment)
        strength = draw(batch, writes, 1, seed=20 + segment).sigmoid()
        found = associative_read(q, associations)
        wanted = torch.stack(
            [torch.stack([recalled(*plain[b], features(q_d))[0] for q_d in q[b]]) for b in range(batch)]
        )
        assert (found - wanted).norm() <= 1e-13 * wanted.norm()
        assert (wanted.norm() > 0) == (segment > 0)
        associations = associative_write(k, v, strength, associations)
        plain = [written(k[b], v[b], strength[b, :, 0], *plain[b]) for b in range(batch)]
        for b in range(batch):
            for one, other in zip((associations[b, :, :-1], associations[b, :, -1]), plain[b], strict=True):
                assert (one - other).norm() <= 1e-13 * other.norm()


def test_what_is_written_in_full_is_read_and_overwritten():
    """Keys without a common feature, strength 1: the newest value of each, exactly."""
    k = torch.tensor([[[1.0, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]])
    associations, full = torch.zeros(1, 48, 4), torch.ones(1, 2, 1)
    for seed in range(3):
        v = draw(1, 2, 3, seed=seed).float()
        associations = associative_write(k, v, full, associations)
        torch.testing.assert_close(associative_read(2.5 * k, associations), v)


def test_novelty_has_no_gradient():
    """The gradient of a second write whose key is partly known, against the loop's, whose gamma is a number."""
    k, v = (draw(1, 1, 4) + 0.4 * draw(1, 2, 4, seed=3)).requires_grad_(), draw(1, 2, 3, seed=1)
    half, cotangent = torch.full((1, 1, 1), 0.5, dtype=torch.float64), draw(24, 4, seed=2)
    after = torch.zeros(1, 24, 4, dtype=torch.float64)
    plain = (after[0, :, :3], after[0, :, 3])
    for m in range(2):
        after = associative_write(k[:, m : m + 1], v[:, m : m + 1], half, after)
        plain = written(k[0, m : m + 1], v[0, m : m + 1], half[0, :, 0], *plain)
    assert 0.1 < features(k[0, 0]) @ features(k[0, 1]) < 0.9
    (found,) = torch.autograd.grad((after[0] * cotangent).sum(), k)
    (wanted,) = torch.autograd.grad((torch.cat([plain[0], plain[1][:, None]], 1) * cotangent).sum(), k)
    assert (found - wanted).norm() <= 1e-12 * wanted.norm()


@pytest.mark.parametrize("empty", [True, False])
def test_gradients_are_differences(empty):
    """Where gamma, which has no gradient, is constant: 1 for an empty memory, 0 where z is large."""
    k, v, q = (draw(2, 3, size, seed=seed).requires_grad_() for seed, size in enumerate((4, 5, 4)))
    strength = draw(2, 3, 1, seed=7).requires_grad_()
    before = torch.zeros(2, 24, 6, dtype=torch.float64) if empty else 3 + draw(2, 24, 6, seed=3).abs()
    before.requires_grad_(not empty)

    def write_and_read(k, v, q, strength, before):
        return associative_read(q, associative_write(k, v, strength.sigmoid(), before))

    assert torch.autograd.gradcheck(write_and_read, (k, v, q, strength, before))


def test_gradients_of_the_empty_memory_are_finite():
    k, v, q = (draw(2, 3, 4, seed=seed).float().requires_grad_() for seed in range(3))
    k.data[0, 0] = 0
    before = torch.zeros(2, 24, 5, requires_grad=True)
    read = associative_read(q, before)
    assert not read.any()
    after = associative_write(k, v, torch.ones(2, 3, 1), before)
    (read.sum() + after.sum() + associative_read(q, after).sum()).backward()
    assert all(torch.isfinite(x.grad).all() for x in (k, v, q, before))


def test_under_autocast_sums_stay_in_float32():
    k, v, q = (draw(2, 3, 4, seed=seed).bfloat16() for seed in range(3))
    associations = torch.zeros(2, 24, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        after = associative_write(k, v, torch.ones(2, 3, 1), associations)
        read = associative_read(q, after)
    assert after.dtype == torch.float32
    assert read.dtype == torch.bfloat16
    torch.testing.assert_close(after, associative_write(k.float(), v.float(), torch.ones(2, 3, 1), associations))


def delta_written(k_Md, v_MD, strength_M, matrix_PD):
    """One sample's matrix after the writes of the rule 'delta', pair by pair of keys."""
    keys = [features(k_d) for k_d in k_Md]
    after_PD = matrix_PD.clone()
    for phi_P, v_D, strength in zip(keys, v_MD, strength_M, strict=True):
        alike = sum(other * (phi_P @ key_P) for other, key_P in zip(strength_M, keys, strict=True))
        recalled_D = sum(matrix_PD[p] * phi_P[p] for p in range(len(phi_P)))
        after_PD += strength / max(alike, 1) * torch.outer(phi_P, v_D - recalled_D)
    return after_PD


@pytest.mark.parametrize("writes", [1, 3, 20])
def test_delta_writes_and_reads_are_their_formulas(writes):
    batch, d, width = 2, 4, 3
    matrix = torch.zeros(batch, 6 * d, width, dtype=torch.float64)
    plain = list(matrix)
    for segment in range(4):
        q, k = draw(batch, 5, d, seed=segment), draw(batch, writes, d, seed=9)
        v = draw(batch, writes, width, seed=segment)
        k[:, -1] = draw(batch, d, seed=segment)
        strength = draw(batch, writes, 1, seed=20 + segment).sigmoid()
        expected = torch.stack([torch.stack([plain[b].T @ features(q_d) for q_d in q[b]]) for b in range(batch)])
        assert (delta_read(q, matrix) - expected).norm() <= 1e-13 * expected.norm()
        matrix = delta_write(k, v, strength, matrix)
        plain = [delta_written(k[b], v[b], strength[b, :, 0], plain[b]) for b in range(batch)]
        for b in range(batch):
            assert (matrix[b] - plain[b]).norm() <= 1e-13 * plain[b].norm()


def test_delta_reads_the_newest_value_of_each_key():
    k = torch.tensor([[[1.0, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]])
    matrix, full = torch.zeros(1, 48, 3), torch.ones(1, 2, 1)
    for seed in range(3):
        v = draw(1, 2, 3, seed=seed).float()
        matrix = delta_write(k, v, full, matrix)
        torch.testing.assert_close(delta_read(2.5 * k, matrix), v)


def test_delta_leaves_the_memory_bit_for_bit_where_nothing_is_written():
    before = draw(1, 24, 5, seed=3)
    k, v, closed = draw(1, 3, 4), draw(1, 3, 5, seed=1), torch.zeros(1, 3, 1, dtype=torch.float64)
    assert torch.equal(delta_write(k, v, closed, before), before)
    # A key without features, as of a position that does not write.
    assert torch.equal(delta_write(torch.zeros_like(k), v, 1 + closed, before), before)


def test_delta_brings_no_two_memories_further_apart_however_many_keys_are_alike():
    one, other = draw(1, 24, 5, seed=1), draw(1, 24, 5, seed=2)
    for step in range(50):
        k, v = draw(1, 1, 4, seed=step % 3) + 0.1 * draw(1, 64, 4, seed=step), draw(1, 64, 5, seed=step)
        strength = torch.ones(1, 64, 1, dtype=torch.float64)
        distance = torch.linalg.matrix_norm(one - other, 2)
        one, other = (delta_write(k, v, strength, matrix) for matrix in (one, other))
        assert torch.linalg.matrix_norm(one - other, 2) <= (1 + 1e-12) * distance
    assert one.abs().max() < 20


def test_delta_gradients_are_differences():
    k, v, q = (draw(2, 3, size, seed=seed).requires_grad_() for seed, size in enumerate((4, 5, 4)))
    strength, before = draw(2, 3, 1, seed=7).requires_grad_(), draw(2, 24, 5, seed=3).requires_grad_()

    def write_and_read(k, v, q, strength, before):
        return delta_read(q, delta_write(k, v, strength.sigmoid(), before))

    assert torch.autograd.gradcheck(write_and_read, (k, v, q, strength, before))


def test_delta_under_autocast_stays_in_float32():
    k, v, q = (draw(2, 3, 4, seed=seed).bfloat16() for seed in range(3))
    before = torch.zeros(2, 24, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        after = delta_write(k, v, torch.ones(2, 3, 1), before)
        assert delta_read(q, after).dtype == torch.bfloat16
    assert after.dtype == torch.float32
    torch.testing.assert_close(after, delta_write(k.float(), v.float(), torch.ones(2, 3, 1), before))


def test_the_stretched_gate_reaches_0_and_1_and_has_a_slope_between():
    x = torch.tensor([-9.0, -2.5, 0, 2.5, 9], dtype=torch.float64, requires_grad=True)
    gate = stretched_gate(x)
    assert gate.tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    (slope,) = torch.autograd.grad(gate.sum(), x)
    assert slope.tolist() == pytest.approx([0, 0, 0.3, 0, 0])


@pytest.mark.parametrize("norm_first", [True, False])
def test_delta_writes_normalised_outputs_in_a_pre_norm_model_only(norm_first):
    torch.manual_seed(0)
    settings = RmaatConfig(
        associative_memory=True, associative_rule="delta", norm_first=norm_first, hidden_size=16, num_attention_heads=2
    )
    memory = AssociativeMemory(settings).double()
    with torch.no_grad():
        memory.value.weight.copy_(torch.randn(16, 16))
    x, before = (
        torch.randn(2, 3, 16, dtype=torch.float64),
        torch.zeros(2, *settings.associations_shape[1:], dtype=torch.float64),
    )
    writes = torch.ones(2, 3, dtype=torch.bool)
    once, larger = (memory.write(scale * x + shift, before, writes) for scale, shift in ((1, 0), (7, 2)))
    # The epsilon of the norm weighs less beside a larger input.
    assert torch.allclose(once, larger, rtol=1e-3, atol=1e-4) == norm_first
