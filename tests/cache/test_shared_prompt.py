"""A prompt read once for several caches leaves each as if it had read it alone."""

import pytest
import torch
from tests.cache.models import held_bytes, llama, prompts, qwen
from transformers import DynamicCache

from rmaat.cache import KeyDiffCache, NestedKVCache, SnapKVCache, StreamingCache, ZeroMergeCache
from rmaat.cache.shared_prompt import SharedPrompt

BUDGET = 24
MAKES = {
    "full": DynamicCache,
    "streaming": lambda: StreamingCache(BUDGET),
    "keydiff": lambda: KeyDiffCache(BUDGET),
    "snapkv": lambda: SnapKVCache(BUDGET, window=8),
    "nested": lambda: NestedKVCache(BUDGET),
    "zeromerge": lambda: ZeroMergeCache(BUDGET),
}


@pytest.mark.parametrize("build", [llama, pytest.param(qwen, marks=pytest.mark.slow)])
@pytest.mark.parametrize("left_padding", [0, 5])
@torch.no_grad()
def test_each_cache_goes_on_as_if_it_had_read_the_prompt_alone(build, left_padding):
    model = build()
    ids = prompts(2, 70)
    mask = torch.ones_like(ids)
    mask[1, :left_padding] = 0
    caches = {name: make() for name, make in MAKES.items()}
    first = model(ids[:, :60], attention_mask=mask[:, :60], past_key_values=SharedPrompt(list(caches.values()))).logits
    for name, cache in caches.items():
        alone = MAKES[name]()
        expected = model(ids[:, :60], attention_mask=mask[:, :60], past_key_values=alone).logits
        torch.testing.assert_close(first[mask[:, :60] == 1], expected[mask[:, :60] == 1])
        # A turn of several tokens, then single ones.
        for start, stop in ((60, 66), (66, 67), (67, 68)):
            step = {"attention_mask": mask[:, :stop]}
            got = model(ids[:, start:stop], past_key_values=cache, **step).logits
            torch.testing.assert_close(got, model(ids[:, start:stop], past_key_values=alone, **step).logits)
        if name != "full":
            assert held_bytes(cache) == held_bytes(alone)
