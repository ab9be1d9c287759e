"""NestedKV holds the entries of its formulas, with one budget for the heads of a layer."""

import pytest
import torch
from tests.cache.models import attended, draw

from rmaat.cache import NestedKVCache, reference_nested_kv
from rmaat.cache.nested import (
    best_entries,
    nested_scores,
    reference_nested_scores,
    spare_entries,
)

CHUNKS = [[140] + [1] * 3, [5] + [1] * 20, [3, 1, 30, 1, 1, 7, 1]]


def keys(rows, heads, tokens):
    """The mean key differs from head to head and along the sequence."""
    drift = draw(rows, heads, 2, 4, seed=1).repeat_interleave(-(-tokens // 2), 2)[:, :, :tokens]
    return draw(rows, heads, tokens, 4) + drift * torch.tensor([0.5, 2.0, 1.0])[:heads, None, None]


@pytest.mark.parametrize("chunks", CHUNKS)
def test_the_held_entries_are_those_of_the_formula(chunks):
    budget, rows, heads, n = 16, 2, 3, sum(chunks)
    k, v = keys(rows, heads, n), draw(rows, heads, n, 4, seed=2)
    q = draw(rows, 2 * heads, n, 4, seed=3)
    cache = NestedKVCache(budget)
    outputs = attended(cache, q, k, v, chunks)
    layer, start = cache.layers[0], 0
    for row in range(rows):
        held = reference_nested_kv(k[row], chunks, budget)
        for name, x in (("keys", k), ("values", v)):
            wanted = [x[row, head, held[head]] for head in range(heads)]
            for head, x_ND in enumerate(wanted):
                assert torch.equal(layer.load()[name][row, head, : len(x_ND)], x_ND)
        assert layer.count[row].tolist() == list(map(len, held))
        assert budget - spare_entries(budget) <= sum(map(len, held)) / heads <= budget
        assert len(set(map(len, held))) > 1
        # Tokens attend to the entries held before, and to themselves.
        for number, chunk in enumerate(chunks[:-1]):
            start += chunk
            held = reference_nested_kv(k[row], chunks[: number + 1], budget)
            if chunks[number + 1] == 1:
                for head in range(heads):
                    seen = [*held[head], start]
                    p = torch.softmax(q[row, 2 * head, start] @ k[row, head, seen].T / 2, -1)
                    output = outputs[row, 2 * head, start]
                    assert torch.allclose(output, p @ v[row, head, seen], atol=1e-12)
        start = 0


@pytest.mark.parametrize("n", [1, 9, 300, 4250])
def test_the_scores_are_those_of_the_formula(n):
    """Blocks have 128 keys, or 132 of 4,250."""
    heads = 1 if n > 1000 else 2
    k = keys(1, heads, n)[0]
    scores = nested_scores(k)
    for head in range(heads):
        wanted = torch.tensor(reference_nested_scores(k[head]), dtype=torch.float64)
        assert torch.allclose(scores[head], wanted, atol=1e-12)


def test_equal_keys_have_finite_scores():
    assert nested_scores(torch.ones(1, 70, 4)).isfinite().all()


def test_a_head_of_low_scores_has_its_guaranteed_entries():
    """One head would have the first four only; a fifth of 30 is six."""
    scores = torch.stack([torch.linspace(0.2, 0, 100), torch.linspace(1, 0.5, 100)])
    kept = best_entries(scores, torch.ones(2, 100, dtype=torch.bool), 30)
    assert kept.sum(-1).tolist() == [6, 54]
    assert kept[0, :6].all()
    assert kept[1, :54].all()
