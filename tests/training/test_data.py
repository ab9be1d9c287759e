"""Runs on one's own files, on pairs, on grey levels: what the model is given, and that the run can be used."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.training.config import RunConfig
from rmaat.training.data import RunData
from rmaat.training.run import train


@pytest.fixture
def own_files(tiny: RunConfig, tmp_path: Path) -> RunConfig:
    """A run on pairs of short texts, labelled by a word."""
    for part, count in (("train", 60), ("test", 20)):
        rows = [
            {"a": f"{part} {i} " + "x" * (i % 40), "b": "y" * (i % 70 + 1), "kind": ["same", "other"][i % 2]}
            for i in range(count)
        ]
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return replace(
        tiny,
        dataset="files",
        data_dir=str(tmp_path),
        train_file=str(tmp_path / "train.jsonl"),
        test_file=str(tmp_path / "test.jsonl"),
        text_column="a",
        label_column="kind",
        max_steps=2,
        eval_steps=2,
        per_device_train_batch_size=8,
    )


@pytest.mark.parametrize("form", ["one", "joined", "towers"])
def test_own_files_train_and_predict_without_the_files(own_files, tmp_path, capsys, form):
    run = replace(own_files, other_text_column=None if form == "one" else "b", two_towers=form == "towers")
    metrics = train(run).metrics
    assert metrics["data"]["train"]["classes"].keys() == {"same", "other"}
    assert metrics["generator_seed"] is None
    Path(run.train_file).unlink()
    texts = [tmp_path / "a.txt", tmp_path / "b.txt"][: 1 if form == "one" else 2]
    for text in texts:
        text.write_text("what is this")
    assert main(["predict", "--model", run.output_dir, *map(str, texts)]) == 0
    shown, label, probability = capsys.readouterr().out.splitlines()[-1].split("\t")
    assert shown == ", ".join(map(str, texts))
    assert label in {"same", "other"}
    assert float(probability) >= 0.5
    if form != "one":
        assert main(["predict", "--model", run.output_dir, str(texts[0])]) == 2
        assert "two by two" in capsys.readouterr().err


def test_a_joined_pair_is_a_separator_and_b_within_max_seq_len(own_files):
    source = RunData.of(replace(own_files, other_text_column="b", max_seq_len=48, num_segments=3))
    data = source.load()
    batch = source.collator()([source.longest_first(data["test"])[0]])
    ids = batch["input_ids"][0, batch["attention_mask"][0] == 1].tolist()
    assert source.vocab_size == 257
    assert ids.count(256) == 1
    assert len(ids) == source.lengths(data["test"]).max() <= 48
    assert bytes(ids[: ids.index(256)]).startswith(b"test")
    assert set(ids[ids.index(256) + 1 :]) == {ord("y")}


def test_levels_are_given_as_values(tiny, tmp_path, capsys):
    generator = np.random.default_rng(0)
    arrays = {
        "x_train": generator.integers(0, 256, (5064, 28, 28), np.uint8),
        "y_train": np.arange(5064, dtype=np.uint8) % 10,
        "x_test": generator.integers(0, 256, (20, 28, 28), np.uint8),
        "y_test": np.arange(20, dtype=np.uint8) % 10,
    }
    np.savez(tmp_path / "mnist.npz", **arrays)
    run = replace(
        tiny,
        dataset="mnist",
        data_dir=str(tmp_path),
        max_seq_len=784,
        num_segments=4,
        input_type="values",
        max_steps=1,
        eval_steps=1,
        eval_examples=16,
    )
    source = RunData.of(run)
    info = source.info
    batch = source.collator()([source.longest_first(source.load()["test"])[0]])
    wanted = (arrays["x_test"][0].reshape(-1) - info.value_mean) / info.value_std
    assert "input_ids" not in batch
    np.testing.assert_allclose(batch["input_values"][0].numpy(), wanted, rtol=1e-5, atol=1e-5)
    train(replace(run, hidden_size=8, num_attention_heads=1))
    Image.fromarray(arrays["x_test"][0]).save(tmp_path / "digit.png")
    assert main(["predict", "--model", run.output_dir, str(tmp_path / "digit.png")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split("\t")[1] in set("0123456789")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"input_type": "values"}, "needs levels"),
        ({"two_towers": True}, "needs pairs"),
        ({"train_file": "a.jsonl"}, "only for the task files"),
        ({"dataset": "files"}, "needs train_file"),
    ],
)
def test_settings_that_do_not_fit_the_task_are_refused(tiny, settings, said):
    with pytest.raises(UserError, match=said):
        train(replace(tiny, **settings))
