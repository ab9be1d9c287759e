"""Linformer's attention against its reference."""

import torch

from rmaat.attention.linformer import linformer_attention, reference_linformer_attention


def test_it_is_its_reference(draw, assert_same):
    """The segment is shorter than the projection, and its second row has padding."""
    mask = torch.arange(9) < torch.tensor([9, 4])[:, None]
    generator = torch.Generator().manual_seed(0)
    projection = torch.randn(5, 12, dtype=torch.float64, generator=generator)
    forms = linformer_attention, reference_linformer_attention
    assert_same(*(lambda *x, form=form: form(*x, mask) for form in forms), (*draw(9), projection))


def test_the_mixer_attends_to_learned_sums(make_mixer, positions, mask):
    mixer = make_mixer("linformer")
    parts = mixer.query_key_value(positions).chunk(3, -1)
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in parts)
    mixed = reference_linformer_attention(q, k, v, mixer.projection, mask)
    wanted = mixer.output(mixed.transpose(1, 2).flatten(-2))
    torch.testing.assert_close(mixer(positions, mask, None), wanted, rtol=1e-10, atol=1e-12)
