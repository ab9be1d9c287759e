"""Which segment decided: probabilities after each segment, changes, passages, figure, mistakes."""

import json
from dataclasses import replace
from itertools import accumulate

import pytest
from tests.training.untrained import LONG, texts_of_lengths, untrained

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.training.config import RunConfig
from rmaat.training.explanation import Explanation, Segment, draw_explanation, explain
from rmaat.training.inference import predict
from rmaat.training.problems import PROBLEMS


# Other schedules have other factors for a shorter text.
@pytest.mark.parametrize("plain", [RunConfig(dataset="files", retention_schedule="none"), LONG])
@pytest.mark.parametrize("length", [1, 16, 50, 200])
def test_each_segment_has_the_prediction_for_the_text_up_to_its_end(plain, length):
    run = untrained(plain, readout="running_mean")
    (text,) = texts_of_lengths(length)
    explanation = explain(run, text)
    assert "".join(segment.text for segment in explanation.segments) == text
    ends = accumulate(len(segment.text) for segment in explanation.segments)
    predictions = [predict(run, [text[:end]]) for end in ends]
    for segment, prediction in zip(explanation.segments, predictions, strict=True):
        assert segment.outputs == pytest.approx(prediction.probabilities, rel=1e-4)
    assert explanation.label == predictions[-1].label
    assert explanation.output == pytest.approx(predictions[-1].probability, rel=1e-4)
    changes = sum(segment.change for segment in explanation.segments)
    assert changes == pytest.approx(explanation.output - 0.5)


def explanation_of(*changes: float) -> Explanation:
    segments = tuple(Segment(f"[{c}]", (0.5 + c / 2, 0.5 - c / 2), c) for c in changes)
    return Explanation("a", ("a", "b"), segments, PROBLEMS["single_label_classification"])


def test_decisive_segments_are_those_of_the_largest_changes():
    assert explanation_of(0.1, -0.3, 0.2, 0.0).most_decisive(3) == [1, 2, 0]
    assert explanation_of(0.1).most_decisive(3) == [0]


def test_the_figure_is_written_whatever_the_labels(tmp_path):
    explanation = replace(explanation_of(0.1, -0.3, 0.2), label="_$5_to_$6", label_names=("_$5_to_$6", "b"))
    draw_explanation(explanation, "$a_text", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("changes", "text", "said"),
    [
        ({"readout": "running_mean", "pooled_norm": True}, "a", "pooled_norm"),
        ({"other_text_column": "b"}, "a", "one text"),
        ({}, "", "empty"),
    ],
)
def test_mistakes(changes, text, said):
    with pytest.raises(UserError, match=said):
        explain(untrained(**changes), text)


def test_an_image_has_no_passages():
    run = untrained()
    source = replace(run.source, info=replace(run.source.info, kind="image"))
    with pytest.raises(UserError, match="another kind of example"):
        explain(replace(run, source=source), "a.png")


def test_the_command_prints_a_table_and_writes_files(own_text_run, tmp_path, capsys):
    text, output = tmp_path / "a.txt", tmp_path / "out"
    text.write_text("rain and wind " * 10)
    assert main(["explain", "--model", str(own_text_run), str(text), "--output", str(output), "--passages", "1"]) == 0
    out = capsys.readouterr().out
    stored = json.loads((output / "explanation.json").read_text())
    assert f"{stored['label']}, " in out.splitlines()[0]
    assert len(stored["segments"]) == 9
    assert out.count("points:") == 1
    assert (output / "explanation.png").stat().st_size > 10_000


def test_mistakes_of_the_command(own_text_run, tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("text\na\nb\n")
    (tmp_path / "empty.jsonl").touch()
    for arguments, said in (
        (["none.txt"], "none.txt: "),
        ([str(tmp_path / "empty.jsonl")], "has no text"),
        ([str(tmp_path / "rows.csv")], "explain reads one text file"),
        (["none.txt", "--passages", "-1"], "passages must be at least 0"),
    ):
        assert main(["explain", "--model", str(own_text_run), *arguments]) == 2
        assert said in capsys.readouterr().err
