"""Answers equal those of `predict` and `explain`, within limits, and streamed in constant memory."""

import gzip
import json
from dataclasses import replace

import pytest
from tests.training.untrained import LONG, texts_of_lengths, untrained

from rmaat.errors import UserError
from rmaat.serve import answers as module
from rmaat.serve.answers import Answers
from rmaat.training.explanation import explain
from rmaat.training.inference import predict


@pytest.fixture(scope="module")
def answers() -> Answers:
    return Answers(untrained(LONG), max_bytes=1000)


def test_a_batch_has_the_predictions_of_its_texts_and_a_bad_text_does_not_spoil_the_others(answers):
    texts = ["", *texts_of_lengths(5, 300)]
    bad, *good = answers.predict(texts)
    assert "empty" in bad["error"]
    for row, text in zip(good, texts[1:], strict=True):
        expected = predict(answers.run, [text])
        assert row["label"] == expected.label
        assert list(row["probabilities"].values()) == pytest.approx(expected.probabilities, rel=1e-5)
        assert row["truncated"] is False
    json.dumps([bad, *good])


def test_rows_have_the_probabilities_of_the_explanation_and_one_size_of_the_state(answers):
    (text,) = texts_of_lengths(200)
    expected = explain(answers.run, text)
    assert answers.explain(text) == expected.record()
    rows = [row.as_json(answers.label_names) for row in answers.stream(text)]
    assert [row["segment"] for row in rows] == list(range(1, 14))
    assert {row["segments"] for row in rows} == {13}
    for row, segment in zip(rows, expected.segments, strict=True):
        assert row["text"] == segment.text
        assert list(row["probabilities"].values()) == pytest.approx(segment.outputs, rel=1e-4)
    assert len({row["state_bytes"] for row in rows}) == 1
    assert rows[0]["state_bytes"] > 0
    assert all(row["memory_bytes"] > 2**20 for row in rows)
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)


def test_the_first_row_comes_before_the_rest_is_read(answers):
    calls = []
    hook = answers.run.model.register_forward_hook(lambda *_: calls.append(1))
    next(answers.stream(texts_of_lengths(200)[0]))
    hook.remove()
    assert len(calls) == 1


def test_limits(answers):
    exact = "é" * 500
    assert answers.explain(exact)["label"]
    assert answers.predict([exact])
    message = "has 1,001 bytes, and this page reads at most 1,000; .*--max_bytes"
    with pytest.raises(UserError, match=message):
        answers.explain(exact + "a")
    with pytest.raises(UserError, match=message):
        next(answers.stream(exact + "a"))
    with pytest.raises(UserError, match=message):
        answers.predict([exact, "a"])


@pytest.mark.parametrize("texts", ["text", None, [1], ["a", None]])
def test_other_types_are_refused(answers, texts):
    with pytest.raises(UserError, match="a list of texts"):
        answers.predict(texts)
    with pytest.raises(UserError, match="must be a string"):
        answers.explain(None)


def test_too_many_texts_are_refused(answers, monkeypatch):
    monkeypatch.setattr(module, "MOST_TEXTS", 2)
    assert len(answers.predict(["a", "b"])) == 2
    with pytest.raises(UserError, match="at most 2 texts at once, got 3"):
        answers.predict(["a", "b", "c"])


def test_a_file_is_decoded_as_predict_does(answers):
    assert answers.document("a.txt", "né\r\n".encode()) == "né\r\n"
    assert answers.document("a.txt.gz", gzip.compress(b"packed")) == "packed"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\xff", "'a.txt': not UTF-8 text: invalid start byte at byte 0"),
        ("a.txt", b"a" * 1001, "'a.txt': the text has more than 1,000 bytes"),
        ("a.txt.gz", gzip.compress(b"a" * 10**6), "'a.txt.gz': the text has more than 1,000 bytes"),
        ("a.txt.gz", b"no gzip", "'a.txt.gz': cannot be read"),
        ("a.csv", b"text\na\n", "'a.csv' holds records"),
        ("<b>\n.txt", b"\xff", r"'<b>\\n.txt': not UTF-8"),
    ],
)
def test_wrong_files(answers, name, content, message):
    with pytest.raises(UserError, match=message):
        answers.document(name, content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"readout": "running_mean", "pooled_norm": True}, "pooled_norm"),
        ({"other_text_column": "b"}, "needs a task with one text"),
    ],
)
def test_runs_without_a_prediction_after_each_segment_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        Answers(untrained(**changes), 1000)


def test_a_run_on_images_is_refused():
    run = untrained()
    source = replace(run.source, info=replace(run.source.info, kind="image"))
    with pytest.raises(UserError, match="another kind of example"):
        Answers(replace(run, source=source), 1000)


def test_the_limit_is_a_positive_number():
    with pytest.raises(UserError, match="max_bytes must be at least 1, got 0"):
        Answers(untrained(), 0)
