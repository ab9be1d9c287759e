"""A grid of tiny cells, and folders as their runs would leave them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rmaat.grid.cells import Cell, make_cells
from rmaat.grid.outcomes import CELL_CONFIG, Outcome, write_status
from rmaat.grid.presets import GRIDS
from rmaat.training.run_folder import METRICS

MEASURED = {
    "test_accuracy": 0.25,
    "test_majority_accuracy": 0.125,
    "test_examples": 40,
    "eval_accuracy": 0.25,
    "train_tokens": 1000,
    "train_seconds": 2.0,
    "train_tokens_per_second": 500,
    "training_memory_bytes": 10**8,
    "num_parameters": 1234,
    "machine": "a machine",
    "commit": "abc",
    "data": {"train": {"lengths": {"input_ids": {"mean": 100.0, "longest": 192}}}},
}


def _outcome(cell: Cell, status: str = "finished", reason: str = "", **measured: Any) -> Outcome:
    metrics = {**MEASURED, **measured} if status == "finished" else {}
    return Outcome(cell, status, reason, metrics)


def _leave(outcome: Outcome, folder: Path) -> None:
    """Write what a run of that outcome leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**outcome.cell.settings, "output_dir": str(folder)}
    (folder / CELL_CONFIG).write_text(yaml.safe_dump(settings))
    if outcome.metrics:
        (folder / METRICS).write_text(json.dumps(outcome.metrics))
    write_status(folder, outcome)


@pytest.fixture
def outcome() -> Callable[..., Outcome]:
    """Makes the outcome of a cell: `outcome(cell, status, reason, **measured)`."""
    return _outcome


@pytest.fixture
def leave() -> Callable[[Outcome, Path], None]:
    """Writes the files of an outcome: `leave(outcome, folder)`."""
    return _leave


@pytest.fixture
def cells(listops_dir: Path) -> list[Cell]:
    """Two models, two seeds."""
    models = ["rmaat", "rmt"]
    return make_cells(GRIDS["smoke"], models=models, seeds=2, data_dir=str(listops_dir))
