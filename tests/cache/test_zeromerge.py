"""ZeroMerge is its formulas, step by step, and merges without loss of mass."""

import pytest
import torch
from tests.cache.models import attended, draw

from rmaat.cache import ZeroMergeCache, reference_zero_merge
from rmaat.cache.received import attention_received
from rmaat.cache.zeromerge import Parts, parts_of

CHUNKS = [[30] + [1] * 25, [5] + [1] * 30, [3, 1, 1, 24, 1, 1, 1, 1, 17, 1, 1], [12] + [1] * 10]


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("settings", [{}, {"decay": 0.7, "alpha": 0.5, "residual_share": 0.4}])
def test_outputs_and_entries_are_those_of_the_formula(chunks, settings):
    rows, heads, groups, n, d = 2, 2, 2, sum(chunks), 4
    q = draw(rows, heads * groups, n, d, seed=1) * 2
    k, v = draw(rows, heads, n, d, seed=2), draw(rows, heads, n, d, seed=3)
    cache = ZeroMergeCache(budget=12, **settings)
    outputs = attended(cache, q, k, v, chunks)
    layer = cache.layers[0]
    for row in range(rows):
        for head in range(heads):
            group = slice(head * groups, (head + 1) * groups)
            tensors = (q[row, group], k[row, head], v[row, head])
            wanted, entries = reference_zero_merge(*tensors, chunks, layer.parts)
            assert torch.allclose(outputs[row, group], wanted, atol=1e-12)
            order = layer.positions[row, head].argsort()
            entries.sort(key=lambda entry: entry.position)
            for name, letter in (("keys", "k"), ("values", "v"), ("scores", "s"), ("weights", "w")):
                held = getattr(layer, name)[row, head, order]
                plain = [torch.as_tensor(getattr(entry, letter)) for entry in entries]
                assert torch.allclose(held, torch.stack(plain).to(held), atol=1e-10), name
            assert layer.positions[row, head, order].tolist() == [e.position for e in entries]
    assert torch.equal(layer.weights.sum(-1), torch.full((rows, heads), n, dtype=torch.float64))


def test_merging_equal_entries_changes_nothing():
    """A residual of w equal entries has the attention of the w entries, thanks to log w."""
    n = 40
    k, v = draw(1, 1, 1, 4).expand(1, 1, n, 4), draw(1, 1, 1, 4, seed=1).expand(1, 1, n, 4)
    k, v = k.clone(), v.clone()
    k[:, :, 30:], v[:, :, 30:] = draw(1, 1, 10, 4, seed=2), draw(1, 1, 10, 4, seed=3)
    q = draw(1, 2, n, 4, seed=4)
    one = attended(ZeroMergeCache(22, recent_share=0.5), q, k, v, [36] + [1] * 4)
    full = attended(ZeroMergeCache(n), q, k, v, [36] + [1] * 4)
    assert torch.allclose(one, full, atol=1e-12)


def test_scores_of_a_long_prompt_leave_out_queries_of_no_weight():
    """More queries than a block, and more than the decay reaches."""
    n = 400
    q, k = draw(1, 2, n, 4, seed=1), draw(1, 1, n, 4, seed=2)
    cache = ZeroMergeCache(n, decay=0.9)
    attended(cache, q, k, k, [n])
    decays = 0.9 ** torch.arange(n - 1, -1, -1.0, dtype=torch.float64)
    logits = (q @ k.mT / 2).masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)
    wanted = torch.einsum("bhqn,q->bn", logits.softmax(-1), decays)
    assert torch.allclose(cache.layers[0].scores[:, 0], wanted, atol=1e-9)
    received = attention_received(q, k, None, decays[None], 0.5)
    assert torch.allclose(received[:, 0], wanted, atol=1e-12)


def test_scores_under_autocast_are_those_without():
    q, k = draw(1, 2, 9, 4, seed=1).float(), draw(1, 1, 9, 4, seed=2).float()
    with torch.autocast("cpu", torch.bfloat16):
        one = attention_received(q, k, None, torch.ones(1, 9), 0.5)
    assert torch.equal(one, attention_received(q, k, None, torch.ones(1, 9), 0.5))


def test_the_parts_of_a_budget():
    assert parts_of(512, 0.5, 0.02, 0.98, 1.0) == Parts(5, 251, 256)
    for budget in range(3, 40):
        for share in (0.01, 0.5, 0.99):
            parts = parts_of(budget, share, share, 0.98, 1.0)
            assert min(parts.residual, parts.heavy, parts.recent) >= 1
            assert parts.budget == budget
