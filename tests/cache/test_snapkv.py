"""SnapKV holds the entries of its formula, with and without a window of the last ones."""

import pytest
import torch
from tests.cache.models import attended, draw

from rmaat.cache import SnapKVCache, reference_snap_kv

CHUNKS = [[30] + [1] * 12, [5] + [1] * 20, [3, 1, 1, 14, 1, 1, 1, 3, 1], [200]]


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize(("window", "kernel"), [(4, 3), (4, 5), (1, 1)])
def test_the_held_positions_are_those_of_the_formula(chunks, window, kernel):
    n, groups, budget = sum(chunks), 2, 12
    q, k, v = draw(2, 4, n, 4, seed=1) * 2, draw(2, 2, n, 4, seed=2), draw(2, 2, n, 4, seed=3)
    cache = SnapKVCache(budget, window, kernel)
    attended(cache, q, k, v, chunks)
    layer = cache.layers[0]
    for row in range(2):
        for head in range(2):
            group = slice(head * groups, (head + 1) * groups)
            wanted = reference_snap_kv(q[row, group], k[row, head], chunks, budget, window, kernel)
            order = layer.positions[row, head].argsort()
            assert layer.positions[row, head, order].tolist() == wanted
            assert torch.equal(layer.keys[row, head, order], k[row, head, wanted])
            assert torch.equal(layer.values[row, head, order], v[row, head, wanted])
