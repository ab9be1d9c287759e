"""Predictions for many examples: order, batches, long texts, bad examples, memory."""

import itertools
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.untrained import LONG, texts_of_lengths, untrained

from rmaat.errors import UserError
from rmaat.tasks.inputs import Example
from rmaat.training import inference
from rmaat.training.finished_run import FinishedRun
from rmaat.training.inference import length_batches, predict, predict_many, read_segments


@pytest.mark.parametrize(
    ("plain", "changes"),
    [
        (None, {}),
        (None, {"readout": "running_mean", "pooled_norm": True}),
        (LONG, {}),
        (None, {"other_text_column": "b"}),
        (None, {"other_text_column": "b", "two_towers": True}),
    ],
)
def test_outcomes_have_the_order_of_the_examples_and_do_not_depend_on_the_others(monkeypatch, plain, changes):
    monkeypatch.setattr(inference, "WINDOW_EXAMPLES", 7)
    run = untrained(plain, **changes)
    lengths = np.random.default_rng(1).integers(1, 300, 40)
    texts = texts_of_lengths(*lengths.tolist())
    examples = [
        Example(str(i), (text, texts[i - 1])[: len(run.source.info.columns)], is_row=i == 3)
        for i, text in enumerate(texts)
    ]
    outcomes = list(predict_many(run, examples))
    assert [outcome.name for outcome in outcomes] == [example.name for example in examples]
    assert [outcome.name for outcome in outcomes if outcome.is_row] == ["3"]
    alone = [predict(run, example.texts).probabilities for example in examples]
    np.testing.assert_allclose([outcome.prediction.probabilities for outcome in outcomes], alone, rtol=1e-4)
    assert np.ptp(alone, axis=0)[0] > 0.1


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 400), max_size=30), st.integers(1, 8), st.integers(1, 500))
def test_batches_hold_similar_lengths_within_their_tokens(lengths, most_rows, most_tokens):
    array = np.array(lengths, np.int64)
    batches = list(length_batches(array, most_rows, most_tokens))
    assert sorted(itertools.chain(*batches)) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) <= most_rows
        assert len(batch) == 1 or len(batch) * array[batch].max() <= most_tokens
    assert all(array[one].min() >= array[other].max() for one, other in itertools.pairwise(batches))


def calls(run: FinishedRun) -> list[dict[str, Any]]:
    """A list to which each call of the model adds its arguments."""
    arguments: list[dict[str, Any]] = []
    run.model.register_forward_pre_hook(lambda module, args, named: arguments.append(named), with_kwargs=True)
    return arguments


@pytest.mark.parametrize(("plain", "pair"), [(None, False), (None, True), (LONG, False), (LONG, True)])
def test_a_long_text_is_read_whole_a_few_segments_at_a_time(plain, pair):
    run = untrained(plain, other_text_column="b" if pair else None)
    texts = texts_of_lengths(1000, 805)[: 1 + pair]
    ids = [text.encode() for text in texts]
    columns = dict(zip(run.source.info.columns, (np.frombuffer(x, np.uint8) for x in ids), strict=True))
    with torch.no_grad():
        expected = run.model(**run.source.collator()([columns])).logits[0].softmax(0)
    parts = calls(run)
    (outcome,) = predict_many(run, [Example("", tuple(texts))])
    assert outcome.prediction.probabilities == pytest.approx(expected.tolist(), rel=1e-4)
    assert not outcome.prediction.truncated
    widths = [part["input_ids"].shape[1] for part in parts]
    assert sum(widths) == 1000 + 806 * pair
    assert max(widths) == 256, "tokens of a full batch"
    assert [part["segment_offset"] for part in parts] == [16 * i for i in range(len(parts))]
    assert {part["total_segments"] for part in parts} == {-(-sum(widths) // 16)}
    # Its beginning counts, so nothing was cut.
    other = predict(run, ["Z" * 500 + texts[0][500:], *texts[1:]])
    if plain is LONG:
        assert other.probabilities != pytest.approx(outcome.prediction.probabilities, rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_segments": 1, "num_memory_tokens": 0, "attention_type": "softmax", "readout": "running_mean"},
        {"retention_schedule": "learned"},
    ],
)
def test_a_model_that_reads_no_more_than_in_training_says_so(changes):
    run = untrained(**changes)
    (text,) = texts_of_lengths(65)
    predictions = [predict(run, [x]) for x in (text, text[:64], text[:63])]
    assert [prediction.truncated for prediction in predictions] == [True, False, False]
    assert predictions[0].probabilities == predictions[1].probabilities != predictions[2].probabilities


def test_texts_are_truncated_as_in_training_if_asked_for():
    run = untrained(other_text_column="b")
    text, other = texts_of_lengths(100, 20)
    assert not predict(run, [text, other]).truncated
    prediction = predict(run, [text, other], truncate=True)
    assert prediction == replace(predict(run, [text[:31], other]), truncated=True)


def test_examples_are_drawn_a_window_at_a_time(monkeypatch):
    run, drawn = untrained(), []

    def endless(text):
        for number in itertools.count():
            drawn.append(number)
            yield Example(str(number), (text,))

    monkeypatch.setattr(inference, "WINDOW_EXAMPLES", 10)
    names = [outcome.name for outcome in itertools.islice(predict_many(run, endless("text")), 25)]
    assert names == [str(i) for i in range(25)]
    assert len(drawn) == 30
    drawn.clear()
    monkeypatch.setattr(inference, "WINDOW_TOKENS", 12)
    next(predict_many(run, endless("text")))
    assert len(drawn) == 3


def test_a_bad_example_has_a_problem_and_the_others_predictions():
    run = untrained()
    examples = [
        Example("a", ("good",)),
        Example("b", problem="cannot be read"),
        Example("c", (" \n",), is_row=True),
        Example("d", ("one", "two")),
        Example("e", ("good",)),
    ]
    outcomes = list(predict_many(run, examples))
    assert [outcome.name for outcome in outcomes if outcome.prediction] == ["a", "e"]
    assert [str(outcome.problem)[:17] for outcome in outcomes[1:4]] == [
        "cannot be read",
        "the text is empty",
        "an example of fil",
    ]
    assert outcomes[2].is_row
    with pytest.raises(UserError, match="the text is empty"):
        predict(run, [""])
    with torch.no_grad():
        run.model.classifier.bias[0] = torch.inf
    with pytest.warns(UserWarning, match="not finite"), pytest.raises(UserError, match="its training diverged"):
        predict(run, ["good"])


def anonymous_bytes() -> int:
    """Memory of this process that is not a mapped file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    pytest.skip("the system does not tell mapped files from other memory")


@pytest.mark.slow
@pytest.mark.parametrize("plain", [None, LONG])
def test_memory_does_not_grow_with_the_length_of_a_text(plain):
    run = untrained(plain, max_seq_len=4096, num_segments=4)
    used = []
    run.model.register_forward_hook(lambda *_: used.append(anonymous_bytes()))
    predict(run, ["long text " * 500_000])
    assert len(used) == -(-5_000_000 // (4 * 4096))
    # Medians, because the allocator returns some memory to the system now and then.
    assert statistics.median(used[-50:]) - statistics.median(used[50:100]) < 2 << 20


@pytest.mark.parametrize("segments_per_call", [1, 3, None])
@pytest.mark.parametrize("plain", [None, LONG])
def test_segments_are_read_a_few_at_a_time_with_one_size_of_the_state(plain, segments_per_call):
    run = untrained(plain)
    (text,) = texts_of_lengths(1000)
    parts = calls(run)
    readings = list(read_segments(run, text, segments_per_call))
    assert "".join(reading.text for reading in readings) == text
    # A batch has 4 times 4 segments.
    size = segments_per_call or 16
    assert [part["input_ids"].shape[1] for part in parts] == [16 * size] * (62 // size) + [
        1000 - 16 * size * (62 // size)
    ]
    assert {reading.segments for reading in readings} == {63}
    assert len({reading.state_bytes for reading in readings}) == 1
    assert not any(reading.truncated for reading in readings)
    assert readings[-1].outputs == pytest.approx(predict(run, [text]).probabilities, rel=1e-4)


def test_the_end_of_a_text_that_the_model_cannot_read_is_reported():
    readings = list(read_segments(untrained(retention_schedule="learned"), texts_of_lengths(100)[0]))
    assert len(readings) == 4
    assert all(reading.truncated for reading in readings)
    assert not any(r.truncated for r in read_segments(untrained(retention_schedule="learned"), texts_of_lengths(64)[0]))


def test_gradients_stay_on_between_the_segments_of_a_text():
    for _ in read_segments(untrained(), texts_of_lengths(40)[0], 1):
        assert torch.is_grad_enabled()
