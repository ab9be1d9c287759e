"""Tables and figures from outcomes made up; the expected numbers are worked out by hand."""

import math
import re

import pytest
from PIL import Image

from rmaat.cli.main import main
from rmaat.grid.cells import Cell
from rmaat.grid.summary import Spread

BASE = {
    "max_seq_len": 2048,
    "num_segments": 2,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "max_steps": 10,
    "per_device_train_batch_size": 4,
    "learning_rate": 0.001,
}
MEASURED = {
    "test_majority_accuracy": 0.176,
    "num_parameters": 1_234_567,
    "data": {"train": {"lengths": {"input_ids": {"mean": 1034.25, "longest": 1999}}}},
}


@pytest.fixture
def printed(tmp_path, capsys, outcome, leave):
    def end(task, model, seed, status="finished", reason="", **measured):
        cell = Cell(task, model, seed, "cpu", BASE, {"seed": seed})
        leave(outcome(cell, status, reason, **MEASURED, **measured), cell.folder(tmp_path))

    def finish(task, model, seed, accuracy, memory, tokens, seconds):
        end(
            task,
            model,
            seed,
            test_accuracy=accuracy,
            training_memory_bytes=memory,
            train_tokens=tokens,
            train_seconds=seconds,
            train_tokens_per_second=tokens / seconds,
        )

    finish("aan_lite", "rmaat", 0, 0.6, 1_000_000_000, 900, 3.0)
    end("listops", "rmaat[astro_mem=false]", 0, "failed", "no room")
    finish("listops", "rmt", 0, 0.30, 2_000_000_000, 1000, 10.0)
    finish("listops", "rmt", 1, 0.34, 3_000_000_000, 3000, 10.0)
    finish("listops", "rmaat", 0, 0.36, 500_000_000, 1000, 4.0)
    finish("listops", "rmaat", 1, 0.37, 500_000_000, 1000, 5.0)
    end("listops", "rmaat", 2, "diverged", "the loss | is not finite")
    assert main(["compare", "table", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "tables.md").read_text() in printed
    return printed


def section(text, title):
    return text.split(f"## {title}")[1].split("\n## ")[0]


def rows(text, title):
    lines = [line for line in section(text, title).splitlines() if line.startswith("|")]
    fields = [[field.strip() for field in line.strip("|").split(" | ")] for line in lines]
    return {row[0]: row[1:] for row in fields}


def test_accuracy(printed):
    """30, 34: mean 32, deviation sqrt(8); 36, 37: 36.5, sqrt(0.5)."""
    table = rows(printed, "Test accuracy (%)")
    assert table["model"] == ["listops", "published", "aan_lite", "published"]
    assert table["`rmt`"] == ["32.00 ± 2.83 (n=2)", "37.4", "–", "–"]
    # The task aan_lite is not the paper's aan.
    assert table["`rmaat`"] == ["36.50 ± 0.71 (n=2, 1 failed)", "38.9", "60.00 (n=1)", "–"]
    assert table["`rmaat[astro_mem=false]`"] == ["1 failed", "–", "–", "–"]
    assert table["always the commonest class"] == ["17.60", "–", "17.60", "–"]


def test_the_order_is_that_of_models(printed):
    models = ["`rmt`", "`rmaat`", "`rmaat[astro_mem=false]`"]
    names = ["model", "---", *models, "always the commonest class"]
    assert list(rows(printed, "Test accuracy (%)")) == names


def test_memory(printed):
    table = rows(printed, "Peak memory of a training step (GB)")
    assert table["`rmt`"][:2] == ["2.500 ± 0.707 (n=2)", "20.4"]
    assert table["`rmaat`"] == ["0.500 ± 0.000 (n=2, 1 failed)", "5.2", "1.000 (n=1)", "–"]


def test_throughput(printed):
    """rmt: 100 and 300 tokens/s, mean 200; rmaat: 250 and 200, so 1.25 and 1.00.

    There is no rmt on aan_lite.
    """
    table = rows(printed, "Training throughput over that of `rmt`")
    assert table["`rmt`"][:2] == ["1.00 ± 0.71 (n=2)", "1.00"]
    assert table["`rmaat`"] == ["1.12 ± 0.18 (n=2, 1 failed)", "1.50", "–", "–"]
    sizes = rows(printed, "Tokens per second in training, and parameters")
    assert sizes["`rmaat`"] == ["225 ± 35 (n=2, 1 failed)", "1,234,567", "300 (n=1)", "1,234,567"]


def test_what_is_to_be_known_is_said(printed):
    assert "5 of 7 cells finished" in printed
    assert "compare within a column" in printed
    assert "arXiv 2601.00426" in printed
    failed = "| listops | `rmaat` | 2 | diverged | the loss \\| is not finite |"
    assert failed in re.sub(" +", " ", printed)
    assert "Machine: a machine. Commit: abc." in printed
    assert rows(printed, "Settings")["listops"][-2:] == ["40", "1,034 to 1,999"]


def test_the_figures_are_drawn(printed, tmp_path):
    for name in ("accuracy_memory.png", "accuracy_time.png"):
        assert Image.open(tmp_path / name).size[0] > 800


def test_a_spread_of_nothing():
    assert Spread().text(".2f") == "–"
    assert Spread(failed=2).text(".2f") == "2 failed"
    assert Spread((1.0,)).deviation is None
    assert math.isclose(Spread((1.0, 2.0, 6.0)).deviation, math.sqrt(7))


def test_a_folder_without_results_is_refused(tmp_path, capsys):
    assert main(["compare", "table", str(tmp_path)]) == 2
    assert "holds no cell that has ended" in capsys.readouterr().err
