"""Caches in `generate` of transformers: exactness, memory, padded rows, beams and turns."""

import copy

import pytest
import torch
from tests.cache.models import held_bytes, llama, prompts, qwen
from torch.nn.functional import pad
from transformers import DynamicCache

from rmaat.cache import (
    KeyDiffCache,
    NestedKVCache,
    SnapKVCache,
    StreamingCache,
    ZeroMergeCache,
)

CACHES = {
    "keydiff": KeyDiffCache,
    "nested": NestedKVCache,
    "snapkv": lambda budget: SnapKVCache(budget, window=3, kernel=3),
    "streaming": lambda budget: StreamingCache(budget, sinks=2),
    "zeromerge": lambda budget: ZeroMergeCache(budget, residual_share=0.3),
}


@pytest.fixture(params=CACHES)
def make(request):
    return CACHES[request.param]


def generated(model, ids, cache, **arguments):
    arguments = {"max_new_tokens": 8, "do_sample": False, "output_logits": True, **arguments}
    return model.generate(ids, past_key_values=cache, return_dict_in_generate=True, **arguments)


def stepwise(model, ids, cache, prompt):
    """Return the logits of each token after the prompt, of one forward pass a token."""
    logits = [model(ids[:, :prompt], past_key_values=cache).logits[:, -1:]]
    for token in range(prompt, ids.shape[1] - 1):
        logits.append(model(ids[:, token : token + 1], past_key_values=cache).logits)
    return torch.cat(logits, 1)


@pytest.mark.parametrize("build", [llama, qwen])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_below_the_budget_a_cache_is_the_full_cache(make, build, dtype):
    """Logits are equal bit by bit, also in a second turn."""
    model, ids = build(dtype), prompts(2, 40)
    ours, full = make(64), DynamicCache(config=model.config)
    for tokens in (21, 40):
        one, other = (generated(model, ids[:, :tokens], cache) for cache in (ours, full))
        assert torch.equal(one.sequences, other.sequences)
        assert torch.equal(torch.stack(one.logits), torch.stack(other.logits))
        ids[:, tokens : tokens + 8] = one.sequences[:, tokens:][:, : ids[:, tokens:].shape[1]]
    assert ours.get_seq_length() == full.get_seq_length()


def test_the_memory_is_within_the_budget_after_each_forward_pass(make):
    model, ids, budget = llama(torch.float32), prompts(2, 40), 12
    cache = make(budget)
    # Two layers, rows and heads, keys and values of width 8 and further fields of 4 bytes.
    further = len(cache.layer_class_to_replicate().fields) - 2
    limit = 2 * 2 * 2 * budget * (2 * 8 * 4 + 4 * further)
    for tokens in [ids, *prompts(2, 30, seed=2).split(1, 1), prompts(2, 20, seed=3)]:
        with torch.no_grad():
            model(tokens, past_key_values=cache)
        assert 0.8 * limit < held_bytes(cache) <= limit
        assert cache.held_bytes() == held_bytes(cache)
    assert cache.get_seq_length() == 90


@pytest.mark.parametrize("budget", [8, 14])
def test_a_padded_row_has_the_result_of_the_row_alone(make, budget):
    """Rows reach the budget in the prompt, while decoding, or in a second turn."""
    model, lengths, turn = llama(), (20, 7, 3), 5
    rows = [prompts(1, length, seed=length) for length in lengths]
    more = prompts(len(rows), turn, seed=9)
    ids = torch.cat([pad(row, (max(lengths) - row.shape[1], 0)) for row in rows])
    cache = make(budget)
    batch = generated(model, ids, cache, attention_mask=(ids != 0).long())
    second = torch.cat([batch.sequences, more], 1)
    mask = torch.cat([(ids != 0).long(), torch.ones(len(rows), 8 + turn, dtype=torch.long)], 1)
    batch_2 = generated(model, second, cache, attention_mask=mask)
    for index, row in enumerate(rows):
        cache = make(budget)
        alone = generated(model, row, cache, attention_mask=torch.ones_like(row))
        full = torch.cat([alone.sequences, more[index : index + 1]], 1)
        alone_2 = generated(model, full, cache, attention_mask=torch.ones_like(full))
        for one, other in ((batch, alone), (batch_2, alone_2)):
            logits, wanted = torch.stack(one.logits)[:, index], torch.stack(other.logits)[:, 0]
            assert torch.allclose(logits, wanted, atol=1e-6)


@pytest.mark.parametrize("budget", [12, 64])
def test_padding_in_a_later_turn_is_not_stored(make, budget):
    """The turn of row 0 has two tokens, that of row 1 has six."""
    model, ids, turn = llama(), prompts(2, 20), prompts(2, 9, seed=9)
    mask = torch.ones(2, 29, dtype=torch.long)
    mask[0, 20:24] = 0
    positions = mask.cumsum(-1) - 1
    batch, alone = make(budget), make(budget)
    with torch.no_grad():
        model(ids, past_key_values=batch)
        model(ids[:1], past_key_values=alone)
        for start, end in ((20, 26), (26, 27), (27, 28), (28, 29)):
            part = slice(start - 20, end - 20)
            one = model(
                turn[:, part],
                attention_mask=mask[:, :end],
                position_ids=positions[:, start:end],
                past_key_values=batch,
            )
            other = model(turn[:1, max(start, 24) - 20 : end - 20], past_key_values=alone)
            assert torch.allclose(one.logits[0, -1], other.logits[0, -1], atol=1e-9)


def test_beams_carry_their_entries_with_them(make):
    """The score of the best beam is that of its tokens alone, decoded one by one."""
    model, ids = llama(), prompts(2, 15)
    out = generated(model, ids, make(10), num_beams=3, output_scores=True, max_new_tokens=10)
    for row in range(2):
        tokens = out.sequences[row : row + 1]
        with torch.no_grad():
            logits = stepwise(model, tokens, make(10), 15)
        score = logits.log_softmax(-1).gather(-1, tokens[:, 15:, None]).sum() / 10
        assert torch.allclose(score.float(), out.sequences_scores[row], atol=1e-5)


def test_a_second_turn_reads_only_its_new_tokens(make):
    model, ids = llama(), prompts(1, 45)
    cache = make(10)
    first = generated(model, ids[:, :30], cache).sequences
    second = torch.cat([first, ids[:, 38:]], 1)
    logits = generated(model, second, cache).logits
    again = make(10)
    with torch.no_grad():
        stepwise(model, first, again, 30)
        wanted = model(second[:, 37:], past_key_values=again).logits[:, -1]
    assert torch.allclose(logits[0], wanted.float(), atol=1e-5)


def test_chunks_of_a_prompt_are_turns(make):
    model, ids = llama(), prompts(2, 30)
    logits = generated(model, ids, make(10), prefill_chunk_size=8).logits
    cache = make(10)
    with torch.no_grad():
        for part in ids.split(8, 1):
            wanted = model(part, past_key_values=cache).logits[:, -1]
    assert torch.allclose(logits[0], wanted.float(), atol=1e-5)


def test_a_copied_or_reset_cache_starts_from_its_state(make):
    model, ids = llama(), prompts(1, 20)
    cache = make(10)
    with torch.no_grad():
        model(ids, past_key_values=cache)
        other = copy.deepcopy(cache)
        one, two = (stepwise(model, prompts(1, 12, seed=3), x, 1) for x in (cache, other))
        assert torch.equal(one, two)
        cache.reset()
        assert cache.get_seq_length() == 0
        assert torch.equal(stepwise(model, ids, cache, 12), stepwise(model, ids, make(10), 12))


def test_rows_can_be_selected_and_repeated(make):
    model, ids, more = llama(), prompts(3, 20), prompts(3, 6, seed=5)
    cache = make(10)
    with torch.no_grad():
        model(ids, past_key_values=cache)
        whole = copy.deepcopy(cache)
        wanted = stepwise(model, more, whole, 1)
        cache.batch_select_indices(torch.tensor([2, 0]))
        cache.batch_repeat_interleave(2)
        rows = [2, 2, 0, 0]
        logits = stepwise(model, more[rows], cache, 1)
        assert torch.allclose(logits, wanted[rows], atol=1e-9)
