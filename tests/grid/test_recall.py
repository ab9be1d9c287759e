"""How far a memory reaches: counted again example by example; what is trained and tested once only; tables from made-up tests."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers.utils.logging import enable_progress_bar

from rmaat.cli.main import main
from rmaat.grid import recall  # a module with names that begin with test_, hence not imported one by one
from rmaat.grid.cells import Cell
from rmaat.grid.outcomes import CELL_CONFIG, Outcome, write_status
from rmaat.models import RmaatConfig, RmaatForSequenceClassification
from rmaat.tasks import task_of
from rmaat.tasks.options import MemoryOptions
from rmaat.training.config import RunConfig
from rmaat.training.data import RunData
from rmaat.training.finished_run import FinishedRun
from rmaat.training.run_folder import METRICS, RUN_CONFIG

SMALL = {
    "dataset": "recall",
    "distance": 1,
    "segment_tokens": 8,
    "max_seq_len": 16,
    "num_segments": 2,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def untrained(**changes) -> FinishedRun:
    """A run's model before its first step; large class weights let its answers differ."""
    source = RunData.of(RunConfig.resolved({**SMALL, **changes}))
    torch.manual_seed(1)
    model = RmaatForSequenceClassification(RmaatConfig(**source.model_settings())).eval()
    torch.nn.init.normal_(model.classifier.weight, std=10.0)
    return FinishedRun(Path(source.run.output_dir), source, model)


@pytest.fixture(scope="session")
def recall_dir(tmp_path_factory) -> Path:
    """A data folder with a few examples of recall over one or two segments of eight tokens."""
    folder = tmp_path_factory.mktemp("recall")
    words = "data recall --distance 1 --segment_tokens 8 --num_train 64 --num_val 16 --num_test 16"
    assert main([*words.split(), "--data_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def command(recall_dir, tmp_path):
    """Call `rmaat compare recall` for one small model and seed, with more words."""
    words = (
        "--distance 1 --segment_tokens 8 --models rmaat --seeds 1 --max_steps 2 --examples 32 --workers 1 --device cpu"
    )
    begin = ["compare", "recall", "--data_dir", str(recall_dir), "--output", str(tmp_path / "out"), *words.split()]
    return lambda *more: main([*begin, *more])


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The models whose training is asked for; instead of a training, an untrained model is written, and no figure is drawn."""
    models = []

    def write(cell, folder, environment, stopped):
        models.append(cell.model)
        run = replace(cell.run_config(), output_dir=str(folder))
        torch.manual_seed(cell.seed)
        config = RmaatConfig(**RunData.of(run).model_settings())
        RmaatForSequenceClassification(config).save_pretrained(folder)
        (folder / RUN_CONFIG).write_text(run.to_yaml())
        (folder / CELL_CONFIG).write_text(yaml.safe_dump(cell.settings))
        outcome = Outcome(cell, "diverged" if cell.settings["learning_rate"] > 1 else "finished")
        if outcome.status == "finished":
            (folder / METRICS).write_text('{"test_accuracy": 0.5}')
            outcome = replace(outcome, metrics={"test_accuracy": 0.5})
        write_status(folder, outcome)
        return outcome

    monkeypatch.setattr("rmaat.grid.executors.run_cell", write)
    monkeypatch.setattr(recall, "draw_recall", lambda comparison, path: None)
    return models


@pytest.fixture
def tested(monkeypatch) -> list[tuple[int, int]]:
    """Segments and examples at most of each test that is made."""
    asked, real = [], recall.test_memory

    def test(run, segments, most, seed, device):
        asked.append((segments, most))
        return real(run, segments, most, seed, device)

    monkeypatch.setattr(recall, "test_memory", test)
    return asked


@pytest.mark.parametrize("segments", [1, 7])
def test_accuracy_is_the_share_of_right_answers_counted_one_by_one(segments):
    run = untrained()
    test = recall.test_memory(run, segments, 100, seed=3, device="cpu")
    ids, labels = run.source.task.draw(np.random.default_rng([3, segments]), 96, segments)
    with torch.no_grad():
        answers = [int(run.model(torch.tensor(row[None].astype(np.int64))).logits.argmax()) for row in ids]
    assert len(set(answers)) > 2
    right = sum(answer == label for answer, label in zip(answers, labels.tolist(), strict=True))
    assert (test.segments, test.tokens, test.examples, test.failure) == (segments, 8 * segments, 96, None)
    assert test.accuracy == right / 96
    assert test.accuracy > 0


@pytest.mark.parametrize(
    ("tokens", "most", "examples"),
    [(32, 256, 256), (32, 40, 32), (32, 1, 16), (2**13, 256, 256), (2**16, 256, 32), (2**15, 40, 32), (2**20, 256, 16)],
)
def test_long_examples_are_fewer_in_whole_batches(tokens, most, examples):
    assert recall.examples_of(tokens, most) == examples


def test_what_cannot_be_read_has_a_reason_and_no_accuracy():
    for changes, reason in (
        ({"model": "transformer", "num_segments": 1}, "reads 16 tokens at once and has no memory"),
        ({"retention_schedule": "learned"}, "has factors for num_segments 2 only"),
    ):
        run = untrained(**changes)
        assert recall.test_memory(run, 2, 16, 0, "cpu").accuracy is not None
        beyond = recall.test_memory(run, 3, 16, 0, "cpu")
        assert (beyond.accuracy, beyond.peak_bytes, beyond.seconds, beyond.examples) == (None, None, None, 0)
        assert reason in beyond.failure


@pytest.mark.slow
def test_peak_memory_is_flat():
    run = untrained(segment_tokens=32, max_seq_len=64)
    few, many = (recall.test_memory(run, segments, 16, 0, "cpu").peak_bytes for segments in (16, 1024))
    assert abs(many - few) < 2 * 2**20, "one int64 a token is 4 MiB; the first call of a process allocates 8 MiB more"


def test_what_is_trained_or_tested_is_not_so_again(command, trained, tested, tmp_path, capsys):
    enable_progress_bar()
    assert command("--segments", "2", "1") == 0
    assert (trained, tested) == (["rmaat"], [(1, 32), (2, 32)])
    stored = json.loads((tmp_path / "out" / "recall.json").read_text())
    assert (stored["task"], stored["trained_segments"], stored["rows"][0]["model"]) == ("recall", 2, "rmaat")
    first = stored["rows"][0]["tests"]
    assert [test["segments"] for test in first] == [1, 2]
    assert "Loading weights" not in capsys.readouterr().err

    assert command("--segments", "1", "2", "4") == 0
    assert (trained, tested[2:]) == (["rmaat"], [(4, 32)])
    again = json.loads((tmp_path / "out" / "recall.json").read_text())["rows"][0]["tests"]
    assert again[:2] == first
    assert command("--segments", "2", "--examples", "48") == 0
    assert tested[3:] == [(2, 48)]

    (cell,) = (tmp_path / "out" / "cells").rglob("recall.json")
    cell.write_text(cell.read_text()[:-20])
    assert command("--segments", "1", "2") == 0
    assert (trained, tested[4:]) == (["rmaat"], [(1, 32), (2, 32)])
    assert json.loads((tmp_path / "out" / "recall.json").read_text())["rows"][0]["tests"][0]["accuracy"] is not None


def made_up() -> recall.Recall:
    """Three seeds of two models, of which one has no memory; in the first, one seed is without a test of 4 segments."""
    rows = []
    for seed, accuracy in enumerate((0.5, 0.75, 0.7)):
        cells = [Cell("recall", model, seed, "recall", {}, {"seed": seed}) for model in ("rmaat", "transformer")]
        four = recall.Test(4, 32, 0, failure="no factors") if seed else recall.Test(4, 32, 256, 0.25, 2**20, 1.0)
        rows.append((cells[0], [recall.Test(1, 8, 256, accuracy, (1 + seed**2) * 2**20, 1.0), four]))
        rows.append((cells[1], [recall.Test(1, 8, 256, 1.0, 2**20, 1.0), recall.Test(4, 32, 0, failure="no memory")]))
    return recall.Recall("recall", 2, rows)


def test_tables_have_mean_and_range_over_seeds_and_the_median_of_memory():
    table = recall.accuracy_table(made_up())
    assert table.headings == ("model", "1", "4")
    assert table.rows == [("rmaat", "65.0 (50.0 to 75.0)", "25.0"), ("transformer", "100.0 (100.0 to 100.0)", "–")]
    assert "trained on at most 2" in table.title
    assert recall.memory_table(made_up()).rows == [("rmaat", "2.0", "1.0"), ("transformer", "1.0", "–")]
    assert recall.failures(made_up()) == [
        "rmaat: no accuracy from 4 segments on: no factors",
        "transformer: no accuracy from 4 segments on: no memory",
    ]
    rows = made_up().to_json()["rows"]
    assert [(row["model"], row["seed"]) for row in rows[:3]] == [("rmaat", 0), ("transformer", 0), ("rmaat", 1)]
    names = ["segments", "tokens", "examples", "accuracy", "peak_bytes", "seconds", "failure"]
    assert [list(test) for test in rows[2]["tests"]] == [names, names]
    values = [[1, 8, 256, 0.75, 2 * 2**20, 1.0, None], [4, 32, 0, None, None, None, "no factors"]]
    assert [list(test.values()) for test in rows[2]["tests"]] == values


def test_the_figure_has_a_line_for_each_model(tmp_path, monkeypatch):
    figures, figure_file = [], recall.figure_file

    @contextmanager
    def remembered(*arguments):
        with figure_file(*arguments) as figure:
            figures.append(figure)
            yield figure

    monkeypatch.setattr(recall, "figure_file", remembered)
    recall.draw_recall(made_up(), tmp_path / "recall.png")
    accuracy, memory = figures[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in accuracy.lines}
    assert lines["rmaat"] == [[1, 65], [4, 25]]
    assert lines["transformer"] == [[1, 100]]
    assert [line.get_xydata().tolist() for line in memory.lines[:2]] == [[[1, 2], [4, 1]], [[1, 1]]]
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["rmaat", "transformer"]
    with Image.open(tmp_path / "recall.png") as image:
        assert image.format == "PNG"
        assert image.width > 800


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--task recal", "unknown --task 'recal'; did you mean 'recall'"),
        ("--models rmat", "did you mean 'rmaat'"),
        ("--models", "--models asks for none"),
        ("--seeds 0", "--seeds asks for none"),
        ("--segments 0", "at least 1 segment, not 0"),
        ("--segments", "--segments needs at least one number"),
        ("--segments 1 two", '"segments" element 2'),
        ("--examples 0", "--examples must be >= 1, not 0"),
        ("--pairs 3", "pairs"),
        ("--device gpu", "device"),
    ],
)
def test_mistakes_are_one_line_and_train_nothing(command, trained, capsys, words, said):
    assert command(*words.split()) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not trained


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--task remember --pairs 40", "remember with 40 pairs needs as many distinct keys"),
        ("--task remember --segments 2 18", "remember with 17 pairs needs as many distinct keys"),
        ("--task rewrite --segments 1", "at least 1 pair, which is 2 segments, not 1"),
        ("--task stories --pairs 3", "pairs"),
    ],
)
def test_mistakes_in_other_tasks(tmp_path, trained, capsys, words, said):
    assert (
        main(["compare", "recall", "--output", str(tmp_path / "out"), "--data_dir", str(tmp_path), *words.split()]) == 2
    )
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not trained


def test_a_folder_with_cells_of_other_settings_is_refused(command, trained, capsys):
    assert command("--segments", "1") == 0
    capsys.readouterr()
    assert command("--segments", "1", "--max_steps", "3") == 2
    assert "max_steps 2 (now 3)" in capsys.readouterr().err
    assert trained == ["rmaat"]


def test_lengths_tested_by_default():
    from rmaat.cli.compare.recall import test_lengths as lengths

    assert lengths(task_of("recall", MemoryOptions()), None) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert lengths(task_of("remember", MemoryOptions()), None) == [2, 3, 4, 6, 11]
    assert lengths(task_of("remember", MemoryOptions(key_size=2)), None) == [2, 3, 4, 6, 11, 21, 41, 51]
    assert lengths(task_of("recall", MemoryOptions()), [4, 2, 4]) == [2, 4]


@pytest.mark.slow
def test_end_to_end(command, tmp_path, capsys):
    assert command("--segments", "1", "4") == 0
    assert "Accuracy (%) on recall by segments, trained on at most 2" in capsys.readouterr().out
    tests = json.loads((tmp_path / "out" / "recall.json").read_text())["rows"][0]["tests"]
    assert [(test["segments"], test["examples"], test["failure"]) for test in tests] == [(1, 32, None), (4, 32, None)]
    assert all(test["peak_bytes"] > 0 for test in tests)
    with Image.open(tmp_path / "out" / "recall.png") as image:
        assert image.format == "PNG"


def test_a_training_that_diverged_is_named_and_the_others_are_tested(command, trained, capsys):
    assert command("--segments", "1", "--models", "rmaat", "rmaat[learning_rate=2.0]") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "rmaat[learning_rate=2.0] seed 0: not tested, because its training diverged" in lines
    assert any(line.startswith("| rmaat ") for line in lines)
