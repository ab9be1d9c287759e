"""The window with sinks holds the positions of its definition, and attends to those only."""

import pytest
import torch
from tests.cache.models import attended, draw

from rmaat.cache import StreamingCache, reference_streaming

CHUNKS = [[20] + [1] * 15, [5] + [1] * 20, [3, 1, 1, 14, 1, 1, 1, 7, 1], [1] * 24]


@pytest.mark.parametrize("chunks", CHUNKS)
def test_the_held_positions_are_those_of_the_definition(chunks):
    cache = StreamingCache(budget=10, sinks=3)
    k = draw(2, 2, sum(chunks), 4)
    attended(cache, draw(2, 4, sum(chunks), 4), k, k, chunks)
    layer = cache.layers[0]
    wanted = reference_streaming(chunks, 10, 3)
    for row in range(2):
        for head in range(2):
            order = layer.positions[row, head].argsort()
            assert layer.positions[row, head, order].tolist() == wanted
            assert torch.equal(layer.keys[row, head, order], k[row, head, wanted])
            assert torch.equal(layer.values[row, head, order], k[row, head, wanted])


def test_a_decoded_token_attends_to_the_entries_of_the_window():
    q, k, v = draw(1, 2, 30, 4, seed=1), draw(1, 1, 30, 4, seed=2), draw(1, 1, 30, 4, seed=3)
    outputs = attended(StreamingCache(budget=8), q, k, v, [20] + [1] * 10)
    for token in range(20, 30):
        held = reference_streaming([20] + [1] * (token - 19), 8)
        p = torch.softmax(q[0, :, token] @ k[0, 0, held].T / 2, -1)
        assert torch.allclose(outputs[0, :, token], p @ v[0, 0, held], atol=1e-12)
