"""max_seq_len and num_segments by the documents: percentile, segments, pairs, models, mistakes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.training.data import RunData
from rmaat.training.run import train


@pytest.fixture
def documents(tiny, tmp_path):
    """A run on documents of 1, 4, 9 ... bytes."""
    for part, letter in (("train", "x"), ("test", "z")):
        rows = [{"text": letter * (i * i), "label": "ab"[i % 2]} for i in range(1, 41)]
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {f"{part}_file": str(tmp_path / f"{part}.jsonl") for part in ("train", "test")}
    return replace(tiny, dataset="files", data_dir=str(tmp_path), max_seq_len=0, **files)


def expected(lengths):
    """The smallest multiple of 16 whose 256ths hold the 95th percentile."""
    longest = int(np.ceil(np.quantile(lengths, 0.95)))
    segments = int(np.ceil(longest / 256))
    return next(n * segments for n in range(16, 257, 16) if n * segments >= longest), segments


def chosen(run):
    run = RunData.of(run).run
    return run.max_seq_len, run.num_segments


def test_documents_are_read_whole_but_for_the_longest(documents):
    squares = [i * i for i in range(1, 41)]
    assert chosen(documents) == expected(squares)


@pytest.mark.parametrize("towers", [False, True])
def test_pairs(documents, towers):
    rows = [{"a": "x" * i, "b": "y" * 3, "label": "ab"[i % 2]} for i in range(1, 102)]
    Path(documents.train_file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = replace(documents, text_column="a", other_text_column="b", two_towers=towers)
    assert chosen(run) == (expected(range(1, 102)) if towers else expected([2 * i + 1 for i in range(1, 102)]))


def test_a_model_without_recurrence_keeps_its_segment(documents):
    run = replace(documents, model="transformer", num_segments=1, num_memory_tokens=0, memory_replay_backprop=False)
    assert chosen(replace(run, attention_type="softmax", astro_mem=False))[1] == 1


def test_very_long_documents_are_truncated(documents, monkeypatch):
    monkeypatch.setattr("rmaat.training.lengths.LONGEST", 512)
    assert chosen(documents) == (512, 2)


@pytest.mark.parametrize(("batch", "chosen_batch"), [(2, 2), (16, 16), (100, 42)])
def test_a_batch_of_long_documents_has_fewer_of_them(documents, batch, chosen_batch):
    assert (
        RunData.of(replace(documents, per_device_train_batch_size=batch)).run.per_device_train_batch_size
        == chosen_batch
    )


def test_a_batch_has_four_documents_however_long(documents, monkeypatch):
    monkeypatch.setattr("rmaat.training.lengths.BATCH", 10)
    assert RunData.of(replace(documents, per_device_train_batch_size=16)).run.per_device_train_batch_size == 4


@pytest.mark.parametrize(("epochs", "fewest", "steps"), [(2, 0, 40), (2, 39, 40), (2, 41, 41), (0.5, 100, 100)])
def test_few_examples_make_as_many_steps_as_asked_for(documents, epochs, fewest, steps):
    run = replace(documents, max_seq_len=16, num_segments=1, max_steps=0, num_train_epochs=epochs, min_steps=fewest)
    run = replace(run, per_device_train_batch_size=1, eval_steps=1000, validation_file=documents.test_file)
    rows = [{"text": "ab"[i % 2] * 3 + str(i), "label": "ab"[i % 2]} for i in range(20)]
    Path(documents.train_file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert train(run).metrics["steps"] == steps


def test_few_of_many_documents_are_measured(documents, monkeypatch):
    monkeypatch.setattr("rmaat.training.lengths.DOCUMENTS_MEASURED", 4)
    assert chosen(documents) == expected([i * i for i in range(1, 41, 10)])


def test_a_run_stores_its_lengths_and_hands_them_on(documents, capfd, tmp_path):
    run = replace(documents, max_steps=1, eval_steps=1, per_device_train_batch_size=2)
    output = Path(train(run).output_dir)
    assert "max_seq_len 1536, num_segments 6" in capfd.readouterr().err
    assert "max_seq_len: 1536" in (output / "run.yaml").read_text()
    Path(documents.train_file).write_text('{"text": "x", "label": 0}\n{"text": "y", "label": 1}\n' * 3)
    assert chosen(replace(documents, init_from=str(output), output_dir=str(tmp_path / "next"))) == (1536, 6)


def test_mistakes(documents, capsys):
    with pytest.raises(UserError, match="max_seq_len 0 needs the lengths of the task files; give listops a number"):
        RunData.of(replace(documents, dataset="listops", train_file=None, test_file=None))
    files = ["--train_file", documents.train_file, "--test_file", documents.test_file]
    assert main(["train", "--dataset", "files", *files, "--max_seq_len", "0", "--num_segments", "4"]) == 2
    assert "--num_segments has no effect: max_seq_len is 0" in capsys.readouterr().err
