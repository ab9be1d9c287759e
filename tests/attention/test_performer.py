"""FAVOR+ against the softmax that it estimates, and the statistics of its directions."""

import pytest
import torch

from rmaat.attention.performer import reference_performer_attention
from rmaat.ops import orthogonal_directions, performer_attention, softmax_attention

MASK = torch.arange(12) < torch.tensor([12, 5])[:, None]


def estimate_error(draw, count: int) -> float:
    q, k, v = draw(12)
    directions = orthogonal_directions(count, 4, torch.Generator().manual_seed(0)).double()
    q, k = 0.7 * q, 0.7 * k
    wanted = softmax_attention(q, k, v, MASK)
    return ((performer_attention(q, k, v, directions, MASK) - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "padded"])
def test_it_is_its_reference(draw, assert_same, monkeypatch, mask):
    """Without the floor, which the reference does not have."""
    monkeypatch.setattr("rmaat.attention.performer.FLOOR", 0.0)
    directions = orthogonal_directions(16, 4, torch.Generator().manual_seed(0)).double()
    forms = performer_attention, reference_performer_attention
    assert_same(*(lambda *x, form=form: form(*x, directions, mask) for form in forms), draw(12))


def test_the_floor_moves_the_result_little(draw):
    directions = orthogonal_directions(16, 4, torch.Generator().manual_seed(0)).double()
    inputs = *draw(12), directions, MASK
    wanted = reference_performer_attention(*inputs)
    error = (performer_attention(*inputs) - wanted).norm() / wanted.norm()
    assert 0 < error < 1e-4


def test_many_features_are_softmax(draw):
    """The error falls with the root of their number."""
    few, many = estimate_error(draw, 500), estimate_error(draw, 50_000)
    assert many < 0.02
    assert many < few / 3


def test_directions_are_orthogonal_in_blocks_and_marginally_normal():
    generator = torch.Generator().manual_seed(0)
    block = orthogonal_directions(4, 4, generator).double()
    cosines = torch.nn.functional.normalize(block, dim=1)
    torch.testing.assert_close(cosines @ cosines.T, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-5)
    many = orthogonal_directions(40_001, 4, generator)
    assert many.shape == (40_001, 4)
    assert many.mean(0).abs().max() < 0.02
    torch.testing.assert_close(many.var(0), torch.ones(4), rtol=0.02, atol=0)
    torch.testing.assert_close(many.pow(4).mean(0), torch.full((4,), 3.0), rtol=0.06, atol=0)


def test_masked_keys_do_not_set_the_scale(draw):
    """A huge key under the mask would push all others below the floor."""
    q, k, v = draw(12)
    directions = orthogonal_directions(16, 4, torch.Generator().manual_seed(0)).double()
    wanted = performer_attention(q, k, v, directions, MASK)
    k[1, :, 5:], v[1, :, 5:] = 1e3, 1e3
    assert torch.equal(performer_attention(q, k, v, directions, MASK), wanted)


def test_it_equals_performer_pytorch_on_the_same_directions(draw, monkeypatch):
    """Both without their floors, which differ."""
    monkeypatch.setattr("rmaat.attention.performer.FLOOR", 0.0)
    oracle = pytest.importorskip("performer_pytorch.performer_pytorch", exc_type=ImportError)
    q, k, v = draw(12)
    directions = orthogonal_directions(64, 4, torch.Generator().manual_seed(0)).double()
    phi_q, phi_k = (
        oracle.softmax_kernel(x, projection_matrix=directions, is_query=is_query, eps=0.0)
        for x, is_query in ((q, True), (k, False))
    )
    wanted = oracle.linear_attention(phi_q, phi_k, v)
    torch.testing.assert_close(performer_attention(q, k, v, directions), wanted, rtol=1e-10, atol=1e-12)


def test_performer_draws_its_directions_once(make_mixer, positions, mask):
    mixer = make_mixer("performer")
    assert mixer.directions.shape == (7, 4)
    assert "directions" in mixer.state_dict()
    assert torch.equal(mixer(positions, mask, None), mixer(positions, mask, None))
