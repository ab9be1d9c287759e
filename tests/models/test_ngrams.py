"""The n-grams beside the deep part: against loops, padding, segments, streams, gradients, mistakes."""

import math

import pytest
import torch

from rmaat import RmaatConfig, RmaatForSequenceClassification
from rmaat.errors import UserError
from rmaat.layers.ngrams import GAIN
from rmaat.models.export import SegmentStep

SEGMENT = 4


def row_of(gram, buckets):
    """The row of an n-gram, by the formula, in Python's whole numbers."""
    code = 0
    for token in gram:
        code = (code + token + 1) % 2**32
        for _ in range(2):
            code = (code ^ code // 2**16) * 0x45D9F3B % 2**32
        code ^= code // 2**16
    return code % buckets


def expected_logits(table, ids, size):
    """The logits of one sequence: the different rows of the n-grams of each segment, summed one by one."""
    total = torch.zeros(table.shape[1], dtype=table.dtype)
    for start in range(0, len(ids), SEGMENT):
        part = ids[start : start + SEGMENT]
        grams = (part[i : i + n] for n in range(1, size + 1) for i in range(len(part) - n + 1))
        for row in {row_of(gram, len(table)) for gram in grams}:
            total = total + table[row]
    return GAIN * total / math.sqrt(len(ids))


def model_of(size, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    defaults = {
        "vocab_size": 20,
        "num_labels": 3,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "max_seq_len": 4 * SEGMENT,
        "num_segments": 4,
        "readout": "running_mean",
        "retention_schedule": "none",
        "ngram_size": size,
        "ngram_buckets": 50,
    }
    config = RmaatConfig(**{**defaults, **settings})
    model = RmaatForSequenceClassification(config).to(dtype).eval()
    assert not model.ngrams.table.any()
    torch.nn.init.normal_(model.ngrams.table)
    return model


def deep_logits(model, **inputs):
    """The logits without the n-grams."""
    ngrams, model.ngrams = model.ngrams, None
    try:
        return model(**inputs)
    finally:
        model.ngrams = ngrams


@pytest.mark.parametrize("size", [1, 2, 3, 6])
@pytest.mark.parametrize("length", [1, 4, 6, 16, 23])
def test_logits_are_the_sum_over_different_ngrams(size, length):
    model = model_of(size)
    ids = torch.randint(5, (2, length))
    ngrams = model(ids).logits - deep_logits(model, input_ids=ids).logits
    for row, logits in zip(ids.tolist(), ngrams, strict=True):
        expected = expected_logits(model.ngrams.table, row, size)
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-11)


def test_padding_changes_nothing():
    model = model_of(3)
    ids, mask = torch.randint(20, (3, 11)), torch.ones(3, 11, dtype=torch.int64)
    mask[1, 6:] = mask[2, 2:] = 0
    out = model(ids, attention_mask=mask, output_segment_logits=True)
    for i, length in enumerate(mask.sum(1).tolist()):
        alone = model(ids[i : i + 1, :length], output_segment_logits=True)
        torch.testing.assert_close(out.logits[i], alone.logits[0], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(out.readout[i], alone.readout[0], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(out.segment_logits[i, -1], alone.segment_logits[0, -1], rtol=1e-9, atol=1e-11)


def test_each_segment_has_the_logits_of_the_sequence_up_to_its_end():
    model = model_of(2)
    ids = torch.randint(20, (2, 14))
    by_segment = model(ids, output_segment_logits=True).segment_logits
    for t in range(4):
        alone = model(ids[:, : SEGMENT * (t + 1)]).logits
        torch.testing.assert_close(by_segment[:, t], alone, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("readout", ["running_mean", "last"])
def test_a_stream_equals_one_call(readout):
    model = model_of(3, readout=readout)
    ids = torch.randint(20, (2, 14))
    whole, state = model(ids), {}
    for first, offset in ((ids[:, :4], 0), (ids[:, 4:12], 1), (ids[:, 12:], 3)):
        out = model(first, segment_offset=offset, total_segments=4, **state)
        state = {"memory": out.memory, "readout": out.readout}
    torch.testing.assert_close(out.logits, whole.logits, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(model.logits_of(out.readout), whole.logits, rtol=1e-9, atol=1e-11)


def test_a_batch_may_be_padded_beyond_its_longest_row():
    model = model_of(2)
    ids, mask = torch.randint(20, (2, 14)), torch.zeros(2, 14, dtype=torch.int64)
    mask[0, :6] = mask[1, :3] = 1
    out = model(ids, attention_mask=mask, output_segment_logits=True)
    shorter = model(ids[:, :6], attention_mask=mask[:, :6], output_segment_logits=True)
    torch.testing.assert_close(out.segment_logits, shorter.segment_logits, rtol=1e-9, atol=1e-11)


def test_an_exported_step_has_them_too():
    model = model_of(3)
    ids, step = torch.randint(20, (2, 12)), SegmentStep(model)
    state = step.initial_state(2)
    whole = model(ids, output_segment_logits=True)
    for t in range(3):
        part = ids[:, t * SEGMENT : (t + 1) * SEGMENT]
        full = torch.full((2,), SEGMENT)
        logits, *state = step(part, full, torch.ones(2, 1, dtype=torch.float64), *state)
        torch.testing.assert_close(logits, whole.segment_logits[:, t], rtol=1e-9, atol=1e-11)


def test_counts_are_exact_in_bfloat16():
    model = model_of(1, dtype=torch.bfloat16)
    assert model(torch.zeros(1, 400, dtype=torch.int64)).readout[0, -1] == 400


@pytest.mark.parametrize("replay", [True, False])
def test_gradients(replay):
    model = model_of(2, memory_replay_backprop=replay, hidden_dropout_prob=0.0).train()
    ids, labels = torch.randint(20, (2, 14)), torch.tensor([0, 2])
    model(ids, labels=labels).loss.backward()
    table = model.ngrams.table.detach().clone().requires_grad_()
    ngrams = torch.stack([expected_logits(table, row, 2) for row in ids.tolist()])
    deep = deep_logits(model, input_ids=ids).logits.detach()
    torch.nn.functional.cross_entropy(deep + ngrams, labels).backward()
    assert table.grad.norm() > 0.1
    torch.testing.assert_close(model.ngrams.table.grad, table.grad, rtol=1e-9, atol=1e-11)


def test_rows_are_spread_evenly():
    ids = torch.arange(5000).reshape(-1, 2)
    counts = torch.zeros(1000)
    for row in ids.tolist():
        for gram in ([row[0]], [row[1]], row):
            counts[row_of(gram, 1000)] += 1
    # 7,500 n-grams in 1,000 rows: a Poisson variable of mean 7.5 exceeds 24 once in a million times.
    assert counts.max() <= 24
    assert (counts == 0).sum() < 10


def test_mistakes():
    with pytest.raises(UserError, match="ngram_size needs one sequence of tokens, and input_type 'values'"):
        model_of(2, input_type="values")
    with pytest.raises(UserError, match="two_towers has two inputs"):
        model_of(2, two_towers=True)
    model = model_of(2)
    out = model(torch.randint(20, (2, 4)))
    with pytest.raises(UserError, match="give the readout of the call"):
        model(torch.randint(20, (2, 4)), memory=out.memory, segment_offset=1, total_segments=2)
    with pytest.raises(UserError, match=r"readout must be \(2, 13\)"):
        model(torch.randint(20, (2, 4)), memory=out.memory, readout=out.readout[:, :9], segment_offset=1)
    with pytest.raises(UserError, match="give input_ids"):
        model(inputs_embeds=torch.zeros(1, 4, 8, dtype=torch.float64))
