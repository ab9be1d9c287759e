"""Tasks: raw files or a generator become an Arrow data set of token ids.

`load` returns a task's data set. Importing this package imports no task.

| file | what happens there |
|---|---|
| `registry.py` | the registered tasks, one line each |
| `base.py` | the interface of a task |
| `listops.py`, `imdb.py`, `aan.py`, `images.py`, `pathfinder/` | the Long Range Arena's tasks |
| `recall.py`, `retrieval.py`, `stories.py` | tasks that need memory; `memory.py` is their base |
| `answers.py` | such tasks with answers at many positions |
| `files.py`, `texts.py`, `records.py`, `tokenizer.py` | the user's own files, labelled or not |
| `folders.py` | folders of text files, and a folder for each class |
| `labels.py` | the label column: classes, sets of labels, numbers, ids of tokens |
| `inputs.py` | inputs of predictions: files, folders, records, standard input |
| `options.py` | the settings of tasks |
| `image_augmentation.py`, `listops_augmentation.py` | training examples change at random, and their labels stay |
| `generate.py` | generated files are written, all or none |
| `download.py` | published archives are fetched and unpacked |
| `text.py`, `npz.py`, `image_files.py` | text, arrays and images are read from files |
| `splits.py` | repeated examples are dropped; validation is held out of train |
| `cache.py`, `checksums.py`, `disk.py` | built data sets are kept and found again |
| `arrow.py`, `statistics.py` | rows become Arrow files, with their statistics beside them |
| `reader.py`, `collate.py` | examples are read from the mapped files and padded into batches |
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rmaat.errors import UserError
from rmaat.tasks.base import ProgressBar, Task, TaskInfo, no_bar
from rmaat.tasks.registry import TASKS, task_of

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = ["TASKS", "Task", "TaskInfo", "data_folder", "load", "task_of"]


def data_folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the data folder: `data_dir` if given, else `$RMAAT_DATA`, else `datasets/`."""
    return Path(data_dir or os.environ.get("RMAAT_DATA") or "datasets").expanduser()


def load(
    task: str | Task,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    max_seq_len: int | None = None,
    bar: ProgressBar = no_bar,
) -> DatasetDict:
    """Return a task's data set, memory-mapped: `train`, `validation`, `test`.

    It is built once, kept in the cache (see `rmaat.tasks.cache`) and from then on only opened. What
    was cut or dropped is logged; `rmaat.tasks.statistics.dataset_statistics` returns it.

    Args:
        task: a name, or a task that `task_of` returned.
        data_dir: see `data_folder`.
        seed: chooses the validation part of tasks that hold it out of train.
        max_seq_len: longer sequences are cut to this; None means the task's own length.
        bar: shown while files are hashed, read and built.

    Returns:
        Columns `input_ids`, a list of token ids, and `labels`, int64, or as `rmaat.tasks.labels` stores
        those of another problem type. Tasks on pairs have `other_input_ids` too.

    Raises:
        UserError: if the task is unknown, files are missing or malformed, the seed is negative or
            the length is below 1.
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
