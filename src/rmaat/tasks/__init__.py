"""Tasks: raw files or a generator in, an Arrow data set of token ids out.

`TASKS` names them all; `load` gives one as a `datasets.DatasetDict`. Importing this package imports no task.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rmaat.errors import UserError
from rmaat.registry import Registry
from rmaat.tasks.base import Task, TaskInfo

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = ["TASKS", "Task", "TaskInfo", "data_folder", "load"]

TASKS: Registry[Task] = Registry(
    "task",
    {
        "listops": "rmaat.tasks.listops:LISTOPS",
        "listops_short": "rmaat.tasks.listops:LISTOPS_SHORT",
        "imdb": "rmaat.tasks.imdb:IMDB",
        "imdb_long": "rmaat.tasks.imdb:IMDB_LONG",
        "imdb_lra": "rmaat.tasks.imdb:IMDB_LRA",
    },
)


def data_folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The data folder: as given, else `$RMAAT_DATA`, else `datasets/`."""
    return Path(data_dir or os.environ.get("RMAAT_DATA") or "datasets").expanduser()


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    max_seq_len: int | None = None,
) -> DatasetDict:
    """The data set of a task, memory-mapped: `train`, `validation`, `test`.

    Columns: `input_ids`, a list of token ids, at most `max_seq_len` (default: the task's own) of them, and `labels`,
    int64; tasks on pairs have `other_input_ids` too. `seed` chooses the validation part where it is held out of train.
    What was cut or dropped is told in each part's `info.description` and logged. Built once and kept under
    `<data_dir>/.rmaat_cache`; see `rmaat.tasks.cache`.

    Raises `UserError` for an unknown task, missing or malformed files, a negative seed or a length below 1.
    """
    task = TASKS[name]
    length = task.info.max_seq_len if max_seq_len is None else max_seq_len
    if length < 1:
        raise UserError(f"max_seq_len must be at least 1, got {length}")
    if seed < 0:
        raise UserError(f"seed must not be negative, got {seed}")
    from rmaat.tasks.cache import load_cached

    return load_cached(task, data_folder(data_dir), seed, length)
