"""The results of a grid: a file of one JSON line a cell, which one grid at a time adds to."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmaat.compare.grid.cells import Key
from rmaat.errors import CellsFailedError, UserError
from rmaat.machine.files import append_text, write_text
from rmaat.machine.locks import LockHeldError, locked

RESULTS = "cells.jsonl"
NEEDED = frozenset({"task", "model", "seed", "status", "reason", "preset", "base", "settings"})
"""What every line has."""

FINISHED, DIVERGED, FAILED = "finished", "diverged", "failed"
"""What became of a cell: measured; loss or gradients not finite, which counts as a failed seed; stopped by anything else, such as
missing data or memory, which is tried again when the grid is."""


@dataclass(frozen=True)
class Record:
    """A line: what became of a cell.

    Attributes:
        task, model, seed: the cell.
        status: one of `FINISHED`, `DIVERGED`, `FAILED`.
        values: the whole line.
    """

    task: str
    model: str
    seed: int
    status: str
    values: dict[str, Any]

    @property
    def key(self) -> Key:
        """The cell's."""
        return self.task, self.model, self.seed

    @property
    def final(self) -> bool:
        """Whether the cell is not to be run again."""
        return self.status in (FINISHED, DIVERGED)

    @property
    def reason(self) -> str:
        """Why a cell is not finished, in one line; empty where it is."""
        return str(self.values["reason"] or "")

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Record":
        """The record of a line's values; raises `ValueError` where they are not a cell's."""
        if not isinstance(values, dict) or not values.keys() >= NEEDED:
            raise ValueError("not the line of a cell")
        return cls(values["task"], values["model"], int(values["seed"]), values["status"], values)


@dataclass(frozen=True)
class Results:
    """What a file holds: the last line of each cell, and how many damaged lines were left out."""

    records: dict[Key, Record]
    damaged: int


def read(folder: Path) -> Results:
    """The results in a folder, none where there is no file. A line that was cut on the way to disk is left out."""
    records: dict[Key, Record] = {}
    damaged = 0
    path = folder / RESULTS
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        try:
            record = Record.of(json.loads(line))
        except ValueError:
            damaged += 1
        else:
            records[record.key] = record
    return Results(records, damaged)


def mend(folder: Path) -> Results:
    """Read, and rewrite the file without damaged lines where there are any, so that it can be added to."""
    results = read(folder)
    path = folder / RESULTS
    if results.damaged:
        write_text(path, "".join(_line(record) for record in results.records.values()))
    elif path.exists() and not path.read_bytes().endswith(b"\n"):
        append_text(path, "\n")
    return results


def append(folder: Path, record: Record) -> None:
    """Add a line and have it on disk."""
    append_text(folder / RESULTS, _line(record))


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make the folder and hold it, so that no other grid writes there.

    Raises:
        UserError: where another grid holds it, or it cannot be written.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / ".lock", wait=False))
        except LockHeldError:
            raise UserError(f"another grid is writing to '{folder}'; wait for it, or give another --output") from None
        except OSError as error:
            raise UserError(f"--output '{folder}' cannot be written: {error.strerror}; give another folder") from error
        yield


def _line(record: Record) -> str:
    return json.dumps(record.values) + "\n"


def check_failed(records: Sequence[Record]) -> None:
    """Raise `CellsFailedError` naming the first failed cell if there is one. A diverged cell is a result, not a failure."""
    failed = [record for record in records if record.status == FAILED]
    if failed:
        raise CellsFailedError(
            f"{len(failed)} of {len(records)} cells failed, the first, {failed[0].task} {failed[0].model} seed "
            f"{failed[0].seed}: {failed[0].reason}; the same command tries them again"
        )
