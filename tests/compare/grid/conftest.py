"""A grid of tiny cells, and lines as their runs would leave them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmaat.compare.grid.cells import Cell, computed, make_cells
from rmaat.compare.grid.presets import GRIDS
from rmaat.compare.grid.process import Job
from rmaat.compare.grid.results import Record

MEASURED = {
    "test_accuracy": 0.25,
    "test_majority_accuracy": 0.125,
    "eval_accuracy": 0.25,
    "train_tokens": 1000,
    "train_seconds": 2.0,
    "training_memory_bytes": 10**8,
    "num_parameters": 1234,
    "machine": "a machine",
    "commit": "abc",
    "lengths": {"train": {"input_ids": {"mean": 100.0, "longest": 192}}},
}


def _record(cell: Cell, status: str = "finished", reason: str | None = None, **measured: Any) -> Record:
    named = {"task": cell.task, "model": cell.model, "seed": cell.seed, "preset": cell.preset, "base": cell.base}
    found = {**MEASURED, **measured} if status == "finished" else {}
    return Record.of({**named, "status": status, "reason": reason, **found, "settings": computed(cell.settings)})


@pytest.fixture
def record() -> Callable[..., Record]:
    """Makes the line of a cell: `record(cell, status, reason, **measured)`."""
    return _record


@pytest.fixture
def cells(listops_dir: Path) -> list[Cell]:
    """Two models, two seeds."""
    return make_cells(GRIDS["smoke"], models=["rmaat", "rmt"], seeds=2, data_dir=str(listops_dir))


@pytest.fixture
def jobs(cells: list[Cell], tmp_path: Path) -> list[Job]:
    """The cells in a folder."""
    return [Job(cell, cell.folder(tmp_path)) for cell in cells]
