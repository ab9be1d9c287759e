"""The outcomes of cells, as the cells' folders hold them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rmaat.grid.cells import CELLS, Cell
from rmaat.machine.files import write_json
from rmaat.training.run_folder import METRICS

CELL_CONFIG = "cell.yaml"
"""The settings with which the cell's run was begun."""

STATUS = "status.json"
"""The cell's name and preset, and the status of its run."""

NAMES = ("task", "model", "seed", "preset", "base")
"""Of the attributes of a cell, those in status.json; its settings are in cell.yaml."""

BEGUN, FINISHED, DIVERGED, FAILED = "begun", "finished", "diverged", "failed"
"""Statuses. A run diverged if its loss or gradients were not finite; that is a result. A run failed
for any other reason, such as missing data or memory; the next grid runs it again."""


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        cell: the cell.
        status: one of `BEGUN`, `FINISHED`, `DIVERGED`, `FAILED`.
        reason: one line if it diverged or failed, else empty.
        metrics: the run's metrics.json if it finished, else empty.
    """

    cell: Cell
    status: str
    reason: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        """Whether the cell need not run again."""
        return self.status in (FINISHED, DIVERGED)


def write_status(folder: Path, outcome: Outcome, seconds: float | None = None) -> None:
    """Write a cell's status.json; `seconds` is the time since the run was begun or resumed."""
    values = {name: getattr(outcome.cell, name) for name in NAMES}
    values |= {"status": outcome.status, "reason": outcome.reason, "wall_seconds": seconds}
    write_json(folder / STATUS, values)


def read_file(path: Path) -> dict[str, Any] | None:
    """Return what a JSON or YAML file holds, or None if it is missing or damaged."""
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return values if isinstance(values, dict) else None


def read_outcomes(output: Path) -> list[Outcome]:
    """Return the outcomes of the cells in a grid's folder whose runs have ended, by their keys."""
    paths = (output / CELLS).glob(f"*/*/*/{STATUS}")
    outcomes = [outcome for path in paths if (outcome := read_outcome(path.parent)) is not None]
    ended = [outcome for outcome in outcomes if outcome.status != BEGUN]
    return sorted(ended, key=lambda outcome: outcome.cell.key)


def read_outcome(folder: Path) -> Outcome | None:
    """Return the outcome in a cell's folder; None if its files are missing or damaged."""
    stored, settings = read_file(folder / STATUS), read_file(folder / CELL_CONFIG)
    metrics = read_file(folder / METRICS)
    if stored is None or settings is None:
        return None
    settings.pop("output_dir", None)
    cell = Cell(**{name: stored[name] for name in NAMES}, settings=settings)
    # The run's metrics decide: the grid may have been killed before it wrote the status.
    if metrics is not None:
        return Outcome(cell, FINISHED, metrics=metrics)
    # A finished run whose metrics are damaged runs again.
    status = BEGUN if stored["status"] == FINISHED else stored["status"]
    return Outcome(cell, status, stored["reason"])
