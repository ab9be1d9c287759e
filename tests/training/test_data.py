"""Runs on one's own files, on pairs, on grey levels: what the model is given, and that the run can be used."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, pipeline

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.training.config import RunConfig
from rmaat.training.data import RunData
from rmaat.training.finished_run import open_run
from rmaat.training.inference import predict
from rmaat.training.run import evaluate, train


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


def save_tokenizer(folder: Path, *words: str) -> None:
    """Of whole words, the first of them for all others."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=words[0]).save_pretrained(folder)


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


@pytest.mark.parametrize(("towers", "kept"), [(False, 6000), (True, 12001)])
def test_own_pairs_are_as_long_as_asked_for(own_files, towers, kept):
    path = Path(own_files.test_file)
    path.write_text(json.dumps({"a": "x" * 20000, "b": "y" * 20000, "kind": "same"}) + "\n")
    run = replace(own_files, other_text_column="b", two_towers=towers, max_seq_len=12001, num_segments=1)
    row = RunData.of(run).load()["test"][0]
    assert (len(row["input_ids"]), len(row["other_input_ids"])) == (kept, kept)


@pytest.mark.parametrize("form", ["one", "towers"])
def test_examples_that_equal_one_of_train_once_cut_are_counted(own_files, capsys, form):
    head = "h" * 48

    def rows(part, count, *heads):
        return [{"a": f"{part} {i}", "b": "same", "kind": ["same", "other"][i % 2]} for i in range(count)] + [
            {"a": text, "b": "same", "kind": "same"} for text in heads
        ]

    for path, found in (
        (own_files.train_file, rows("train", 40, f"{head} of train", "short")),
        (own_files.test_file, rows("test", 9, f"{head} of test", f"{head} too", "h" * 47, "short")),
    ):
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in found))
    run = replace(own_files, validation_file=own_files.test_file, max_seq_len=48, num_segments=3)
    if form == "towers":
        run = replace(run, other_text_column="b", two_towers=True)
    metrics = train(run).metrics
    assert metrics["data"]["train"]["examples"] == 41
    for part in ("validation", "test"):
        assert metrics["data"][part]["notes"][-1] == "2 examples equal one of train once they are truncated"
    assert "test: 2 examples equal one of train once they are truncated" in capsys.readouterr().err


def test_examples_that_equal_one_of_train_to_the_tokenizer_are_counted(own_files, tmp_path):
    save_tokenizer(tmp_path / "words", "?", "train", "test", "x")
    source = RunData.of(replace(own_files, tokenizer=str(tmp_path / "words")))
    assert not source.statistics(source.load())["test"].notes
    Path(own_files.test_file).write_text(json.dumps({"a": "train   unknown", "kind": "same"}) + "\n")
    source = RunData.of(replace(own_files, tokenizer=str(tmp_path / "words")))
    assert list(source.statistics(source.load())["test"].notes) == [
        "1 examples equal one of train once they are truncated and tokenised"
    ]


@pytest.mark.slow
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
        ({"input_type": "values"}, "needs numbers, such as the levels"),
        (
            {"input_type": "values", "dataset": "mnist", "max_seq_len": 1024, "num_segments": 4, "patch_size": 32},
            "patch_size 32 does not divide the 784 values of an example of mnist; a row has 28",
        ),
        ({"two_towers": True}, "needs pairs"),
        ({"dataset": "imdb", "augmentation": True}, "imdb has none; the tasks with one are listops, listops_short, "),
        (
            {"dataset": "cifar10", "max_seq_len": 512, "num_segments": 4, "augmentation": True},
            "max_seq_len 512 truncates those of cifar10; set max_seq_len: 1024",
        ),
        ({"train_file": "a.jsonl"}, "train_file: no setting of the task listops_short"),
        ({"dataset": "files"}, "needs train_file"),
    ],
)
def test_settings_that_do_not_fit_the_task_are_refused(tiny, settings, said):
    with pytest.raises(UserError, match=said):
        train(replace(tiny, **settings))


def test_the_tokenizer_of_a_run_is_kept_with_it(own_files, tmp_path, capsys):
    given, kept = tmp_path / "given", Path(own_files.output_dir)

    save_tokenizer(given, "?", "train", "test")
    run = replace(own_files, tokenizer=str(given))
    metrics = train(run).metrics
    save_tokenizer(given, "?", "test", "train")
    finished = open_run(Path(run.output_dir))
    assert finished.source.task.encode("train").tolist() == [1]
    assert evaluate(finished)["test_loss"] == pytest.approx(metrics["test_loss"])
    with pytest.raises(UserError, match=r"differs from the one that the run saved in '.*'"):
        train(replace(run, resume=True))
    train(replace(run, resume=True, tokenizer=str(kept)))
    (kept / "tokenizer.json").unlink()
    assert main(["predict", "--model", run.output_dir, run.test_file]) == 2
    error = capsys.readouterr().err
    assert "is damaged: tokenizer.json" in error
    assert "is missing" in error


@pytest.mark.parametrize("words", [(), ("?", "train", "test", "x")], ids=["bytes", "words"])
def test_a_pipeline_predicts_as_the_command_does(own_files, tmp_path, words):
    if words:
        save_tokenizer(tmp_path / "words", *words)
    run = replace(own_files, tokenizer=str(tmp_path / "words") if words else None, max_seq_len=24)
    train(run)
    finished = open_run(Path(run.output_dir))
    classify = pipeline("text-classification", run.output_dir, device="cpu")
    # Else transformers would warn of a text longer than those of training.
    assert classify.tokenizer.model_max_length > 10**20
    # Of one segment, of several, and longer than those of training.
    for text in ("train", "train test x", "train é " * 20):
        expected = predict(finished, [text])
        assert not expected.truncated
        result = classify(text)[0]
        assert result["label"] == expected.label
        assert result["score"] == pytest.approx(expected.probability, rel=1e-5)
    if not words:
        texts = ["train", "train test x"]
        together = classify(texts, batch_size=2)
        assert [x["score"] for x in together] == pytest.approx([classify(x)[0]["score"] for x in texts], rel=1e-5)


def test_a_tokenizer_in_the_folder_of_earlier_versions_is_read(own_files, tmp_path):
    given, run_folder = tmp_path / "given", Path(own_files.output_dir)
    save_tokenizer(given, "?", "train", "test")
    metrics = train(replace(own_files, tokenizer=str(given))).metrics
    (run_folder / "tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (run_folder / name).rename(run_folder / "tokenizer" / name)
    stored = json.loads((run_folder / "metrics.json").read_text())
    stored["files"] = {
        f"tokenizer/{name}" if name.startswith("tokenizer") else name: record
        for name, record in stored["files"].items()
    }
    (run_folder / "metrics.json").write_text(json.dumps(stored))
    assert evaluate(open_run(run_folder))["test_loss"] == pytest.approx(metrics["test_loss"])
    train(replace(own_files, overwrite=True))
    assert not (run_folder / "tokenizer").exists()


def test_an_automatic_tokenizer_is_made_once_for_a_run_and_those_that_begin_with_it(own_files, tmp_path):
    run = replace(own_files, tokenizer="auto")
    train(run)
    first = open_run(Path(run.output_dir)).source.task.tokenizer_checksum()
    # Other texts would give another tokenizer.
    train_file = Path(run.train_file)
    train_file.write_text(train_file.read_text().replace("train", "zebra"))
    assert RunData.of(run).task.tokenizer_checksum() != first
    assert RunData.of(replace(run, resume=True)).task.tokenizer_checksum() == first
    fine_tuned = RunData.of(replace(run, init_from=run.output_dir, output_dir=str(tmp_path / "next")))
    assert fine_tuned.task.tokenizer_checksum() == first
    assert fine_tuned.run.tokenizer == run.output_dir


def test_a_run_that_begins_with_one_of_bytes_reads_bytes(own_files, tmp_path):
    train(own_files)
    run = replace(own_files, tokenizer="auto", init_from=own_files.output_dir, output_dir=str(tmp_path / "next"))
    assert train(run).metrics["init_from"] == own_files.output_dir
    assert open_run(tmp_path / "next").config.tokenizer is None


def test_own_files_may_move_before_a_run_is_resumed(own_files, tmp_path):
    train(own_files)
    (tmp_path / "moved").mkdir()
    places = {}
    for name in ("train_file", "test_file"):
        path = Path(getattr(own_files, name))
        places[name] = str(path.rename(tmp_path / "moved" / f"other-{path.name}"))
    train(replace(own_files, resume=True, **places))


def test_own_files_that_have_another_label_do_not_resume_a_run(own_files):
    train(own_files)
    with Path(own_files.train_file).open("a") as file:
        file.write('{"a": "new", "kind": "added"}\n')
    with pytest.raises(UserError, match=r"the data of .* has changed since the run began"):
        train(replace(own_files, resume=True))


def test_a_held_out_test_is_measured_again_until_the_file_changes(own_files, capsys):
    run = replace(own_files, test_file=None, eval_steps=0)
    metrics = train(run).metrics
    assert metrics["test_examples"] == metrics["data"]["test"]["examples"] > 0
    folder = Path(run.output_dir)
    assert RunConfig.from_yaml(folder / "run.yaml").eval_steps == max(1, run.max_steps // 10)
    assert evaluate(open_run(folder))["test_loss"] == pytest.approx(metrics["test_loss"])
    with Path(own_files.train_file).open("a") as file:
        file.write('{"a": "new", "kind": "same"}\n')
    assert main(["evaluate", "--model", run.output_dir]) == 2
    assert (
        "the examples that were held out for the test are no longer known; give --test_file" in capsys.readouterr().err
    )
    assert main(["evaluate", "--model", run.output_dir, "--test_file", own_files.test_file]) == 0


def test_own_test_file_is_measured_by_the_labels_of_the_model(own_files, capsys):
    metrics = train(own_files).metrics
    assert evaluate(open_run(Path(own_files.output_dir)))["test_accuracy"] == metrics["test_accuracy"]
    train_file, test_file = Path(own_files.train_file), Path(own_files.test_file)
    train_file.write_text('{"a": "new", "kind": "added"}\n' + train_file.read_text().replace("same", "zzz"))
    assert evaluate(open_run(Path(own_files.output_dir)))["test_loss"] == pytest.approx(metrics["test_loss"])
    train_file.unlink()
    assert main(["evaluate", "--model", own_files.output_dir]) == 0
    assert "(20 examples)" in capsys.readouterr().out
    test_file.write_text(test_file.read_text().replace("other", "zother"))
    assert main(["evaluate", "--model", own_files.output_dir]) == 2
    told = capsys.readouterr().err
    assert f"{test_file}, line 2: the label 'zother' is not one of the model's; did you mean 'other'?" in told
    assert told.count("\n") == 1
    test_file.write_text("")
    assert main(["evaluate", "--model", own_files.output_dir]) == 2
    assert f"{test_file} has no examples" in capsys.readouterr().err
