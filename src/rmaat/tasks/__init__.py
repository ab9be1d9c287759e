"""Tasks: raw files or a generator in, an Arrow data set of token ids out.

`TASKS` names them all; `load` gives one as a `datasets.DatasetDict`. Importing this package imports no task.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rmaat.errors import UserError
from rmaat.registry import Registry
from rmaat.tasks.base import ProgressBar, Task, TaskInfo, no_bar

if TYPE_CHECKING:
    from datasets import DatasetDict

    from rmaat.tasks.files import FilesOptions
    from rmaat.tasks.options import MemoryOptions

__all__ = ["TASKS", "Task", "TaskInfo", "data_folder", "load", "task_of"]

TASKS: Registry[Task] = Registry(
    "task",
    {
        "listops": "rmaat.tasks.listops:LISTOPS",
        "listops_short": "rmaat.tasks.listops:LISTOPS_SHORT",
        "imdb": "rmaat.tasks.imdb:IMDB",
        "imdb_long": "rmaat.tasks.imdb:IMDB_LONG",
        "imdb_lra": "rmaat.tasks.imdb:IMDB_LRA",
        "cifar10": "rmaat.tasks.images:CIFAR10",
        "mnist": "rmaat.tasks.images:MNIST",
        "fashion_mnist": "rmaat.tasks.images:FASHION_MNIST",
        "pathfinder32": "rmaat.tasks.pathfinder.task:PATHFINDER32",
        "pathfinder32_intermediate": "rmaat.tasks.pathfinder.task:PATHFINDER32_INTERMEDIATE",
        "pathfinder32_easy": "rmaat.tasks.pathfinder.task:PATHFINDER32_EASY",
        "aan": "rmaat.tasks.aan:AAN",
        "aan_lite": "rmaat.tasks.aan:AAN_LITE",
        "recall": "rmaat.tasks.recall:RECALL",
        "remember": "rmaat.tasks.retrieval:REMEMBER",
        "rewrite": "rmaat.tasks.retrieval:REWRITE",
        "stories": "rmaat.tasks.stories:STORIES",
        "files": "rmaat.tasks.files:FILES",
    },
)


def data_folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The data folder: as given, else `$RMAAT_DATA`, else `datasets/`."""
    return Path(data_dir or os.environ.get("RMAAT_DATA") or "datasets").expanduser()


def task_of(name: str, options: FilesOptions | MemoryOptions | None = None) -> Task:
    """The task of that name with the options that are not None.

    Raises `UserError` for an unknown name, for options that the task does not have, and for bad values of its own.
    """
    task = TASKS[name]
    values = {key: value for key, value in asdict(options).items() if value is not None} if options else {}
    if foreign := sorted(values.keys() - set(task.option_names)):
        settings = f"its settings are {', '.join(task.option_names)}" if task.option_names else "it has none"
        raise UserError(f"{', '.join(foreign)}: no setting of the task {name}; {settings}")
    return task.with_options(values)


def load(
    task: str | Task,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    max_seq_len: int | None = None,
    bar: ProgressBar = no_bar,
) -> DatasetDict:
    """The data set of a task, memory-mapped: `train`, `validation`, `test`.

    `task` is a name or what `task_of` gave. Columns: `input_ids`, a list of token ids, at most `max_seq_len` (default:
    the task's own) of them, and `labels`, int64; tasks on pairs have `other_input_ids` too. `seed` chooses the
    validation part where it is held out of train. What was cut or dropped is told by `rmaat.tasks.facts.summary` and
    logged. Built once, with `bar` shown meanwhile, and kept under `<data_dir>/.rmaat_cache`; see `rmaat.tasks.cache`.

    Raises `UserError` for an unknown task, missing or malformed files, a negative seed or a length below 1.
    """
    if isinstance(task, str):
        task = task_of(task)
    length = task.info.max_seq_len if max_seq_len is None else max_seq_len
    if length < 1:
        raise UserError(f"max_seq_len must be at least 1, got {length}")
    if seed < 0:
        raise UserError(f"seed must not be negative, got {seed}")
    from rmaat.tasks.cache import load_cached

    return load_cached(task, data_folder(data_dir), seed, length, bar)
