"""`rmaat.train` and `rmaat.predict` against the command line."""

import json

import pytest
from transformers.utils import logging

import rmaat
from rmaat.cli.main import main

TINY = {
    "dataset": "files",
    "max_seq_len": 64,
    "num_segments": 4,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_steps": 4,
    "eval_steps": 4,
    "warmup_steps": 0,
    "per_device_train_batch_size": 8,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    for part, count in (("train", 40), ("test", 9)):
        rows = ({"text": f"{part} {i} " + "ab"[i % 2] * 9, "label": "ab"[i % 2]} for i in range(count))
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = {"train_file": "train.jsonl", "test_file": "test.jsonl", "data_dir": "", "output_dir": "run"}
    return {name: str(folder / file) for name, file in names.items()}


@pytest.fixture(scope="module")
def result(files):
    return rmaat.train(**TINY, **files)


def test_the_run_is_that_of_the_command_line(files, result, tmp_path):
    stored = json.loads((result.output_dir / "metrics.json").read_text())
    assert result.metrics == stored
    flags = {**TINY, **files, "output_dir": str(tmp_path / "run")}
    assert main(["train", *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]) == 0
    again = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {name: again[name] for name in ("test_loss", "eval_loss")} == {
        name: stored[name] for name in ("test_loss", "eval_loss")
    }


def test_predictions_are_those_of_the_command_line_in_order(result, tmp_path, capsys):
    texts = ["bbb", "a" * 300, "ab", "b" * 80]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert main(["predict", "--model", str(result.output_dir), str(rows)]) == 0
    lines = [line.split("\t")[1:] for line in capsys.readouterr().out.splitlines()]
    predictions = rmaat.predict(result.output_dir, texts)
    assert [[x.label, f"{x.probability:.4f}"] for x in predictions] == lines


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_step": 3}, "max_step"),
        ({"max_steps": 0.5}, "max_steps"),
        ({"num_train_epochs": 2}, "num_train_epochs has no effect: max_steps is 4"),
        ({"recipe": "nothing"}, "nothing"),
        ({}, "already holds a run"),
    ],
)
def test_mistakes_are_errors_with_a_text(files, result, settings, message):
    with pytest.raises(ValueError, match=message):
        rmaat.train(**{**TINY, **files, **settings})


def test_mistakes_in_texts_name_the_text(result, tmp_path):
    with pytest.raises(ValueError, match=r"texts\[1\]: .*empty"):
        rmaat.predict(result.output_dir, ["a", ""])
    with pytest.raises(ValueError, match=r"texts is one string"):
        rmaat.predict(result.output_dir, "a")
    with pytest.raises(ValueError, match=r"1 text\(s\), not 2"):
        rmaat.predict(result.output_dir, [("a", "b")])
    with pytest.raises(ValueError, match="is not a run"):
        rmaat.predict(tmp_path, ["a"])


def test_transformers_keeps_its_bars(result, capsys):
    assert logging.is_progress_bar_enabled()
    rmaat.predict(result.output_dir, ["a"])
    assert logging.is_progress_bar_enabled()
    assert capsys.readouterr() == ("", "")
