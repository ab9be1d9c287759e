"""KeyDiff holds the entries of its formula, evicted one by one or many at once."""

import pytest
import torch
from tests.cache.models import attended, draw

from rmaat.cache import KeyDiffCache, reference_key_diff

CHUNKS = [[20] + [1] * 15, [5] + [1] * 20, [3, 1, 1, 14, 1, 1, 1, 7, 1]]


@pytest.mark.parametrize("chunks", CHUNKS)
def test_the_held_entries_are_those_of_the_formula(chunks):
    """The mean key is not zero, as in a language model, so differences are not noise alone."""
    cache = KeyDiffCache(budget=10)
    k = draw(2, 2, sum(chunks), 4) + draw(2, 2, 1, 4, seed=1)
    attended(cache, draw(2, 4, sum(chunks), 4), k, k, chunks)
    layer = cache.layers[0]
    for row in range(2):
        for head in range(2):
            wanted = k[row, head, reference_key_diff(k[row, head], chunks, 10)]
            for held in (layer.keys[row, head], layer.values[row, head]):
                assert {tuple(x.tolist()) for x in held} == {tuple(x.tolist()) for x in wanted}


def test_a_decoded_token_attends_to_the_entries_of_the_formula():
    q, k, v = draw(1, 2, 30, 4, seed=1), draw(1, 1, 30, 4, seed=2) + 1, draw(1, 1, 30, 4, seed=3)
    outputs = attended(KeyDiffCache(budget=8), q, k, v, [20] + [1] * 10)
    for token in range(20, 30):
        held = reference_key_diff(k[0, 0], [20] + [1] * (token - 19), 8)
        p = torch.softmax(q[0, :, token] @ k[0, 0, held].T / 2, -1)
        assert torch.allclose(outputs[0, :, token], p @ v[0, 0, held], atol=1e-12)
