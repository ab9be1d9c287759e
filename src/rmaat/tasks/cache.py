"""The cache of built data sets: built once, never seen half-written, shared by processes.

An entry is a folder `TASK-KEY` with an Arrow file and a JSON file of statistics for each part. The
key is a digest of everything that the data set depends on, so an entry is never changed, only
added.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from rmaat.errors import UserError
from rmaat.machine.files import scratch_folder, sync_to_disk
from rmaat.machine.locks import locked
from rmaat.tasks.arrow import read_part, write_part
from rmaat.tasks.base import SPLITS, Part, ProgressBar, Task, no_bar
from rmaat.tasks.checksums import FileStates, combined_checksum, file_states, remembered_checksums
from rmaat.tasks.statistics import dataset_statistics, part_statistics

if TYPE_CHECKING:
    from datasets import DatasetDict

FORMAT = 4
"""Raised whenever the same files would give other data sets."""

logger = logging.getLogger(__name__)


def load_cached(task: Task, data_dir: Path, seed: int, max_seq_len: int, bar: ProgressBar = no_bar) -> DatasetDict:
    """Return the task's data set from the cache. Build it first if it is missing or damaged.

    Raises:
        UserError: if the cache cannot be written, if a file changes meanwhile, and whatever the
            task's `sources` and `build` raise.
    """
    # The files' states from before anything is read show, at the end of a build, whether a file
    # changed.
    states = file_states(task.sources(data_dir))
    cache = cache_folder(data_dir)
    entry = cache / f"{task.info.name}-{data_digest(task, data_dir, seed, max_seq_len, bar)}"
    # An entry appears in one step and never changes, so reading it needs no lock.
    dataset = _open_entry(entry)
    if dataset is None:
        try:
            # One process builds the entry; the others wait for it here.
            with locked(entry.with_suffix(".lock")):
                dataset = _open_entry(entry)
                if dataset is None:
                    _build_entry(entry, task, data_dir, seed, max_seq_len, bar, states)
                    dataset = _open_entry(entry)
        except OSError as error:
            raise UserError(
                f"{cache}: the built data set cannot be written ({error.strerror or error}); "
                "set RMAAT_CACHE to a writable folder with room"
            ) from error
    assert dataset is not None, entry
    for split, statistics in dataset_statistics(dataset).items():
        logger.info("%s %s: %s", task.info.name, split, statistics.sentence())
    return dataset


def data_digest(task: Task, data_dir: Path, seed: int, max_seq_len: int, bar: ProgressBar = no_bar) -> str:
    """Return 16 hexadecimal digits that stand for everything the data set depends on.

    They do not depend on the place of the files. For the arguments and errors see `load_cached`.
    """
    sources = task.sources(data_dir)
    settings = {
        "task": task.info.name,
        "format": FORMAT,
        "max_seq_len": max_seq_len,
        "seed": seed if task.info.seeded else None,
        "sources": combined_checksum(remembered_checksums(sources, cache_folder(data_dir), bar)),
        "names": [str(path.relative_to(data_dir)) for path in sources if path.is_relative_to(data_dir)]
        if task.names_are_data
        else [],
        **task.settings(),
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _open_entry(entry: Path) -> DatasetDict | None:
    """Return the data set of an entry; None if it is missing or damaged."""
    from datasets import DatasetDict

    dataset = DatasetDict()
    for split in SPLITS:
        try:
            dataset[split] = read_part(entry / f"{split}.arrow")
            examples = part_statistics(dataset[split]).examples
        except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException):
            return None  # these are what altered JSON or Arrow raises
        # Arrow accepts a stream that was cut off between two record batches.
        if len(dataset[split]) != examples:
            return None
    return dataset


def _build_entry(
    entry: Path, task: Task, data_dir: Path, seed: int, max_seq_len: int, bar: ProgressBar, states: FileStates
) -> None:
    """Build an entry. The caller holds the entry's lock."""
    if entry.exists():
        logger.warning("%s is damaged and is built again", entry)
        shutil.rmtree(entry)
    # Build in a folder with a name that no one reads. A process that was killed may have left one,
    # and because this process holds the lock, no other is using it.
    with scratch_folder(entry.with_suffix(".partial")) as partial:
        with bar(f"reading {task.info.name}", None):
            parts = task.build(data_dir, seed)
        with bar(f"building {task.info.name}", _total_rows(parts.values())) as progress:
            for split, part in parts.items():
                write_part(partial / f"{split}.arrow", task.info, part, max_seq_len, progress)
        # The key was made from the content before the build. If a file changed since, the entry
        # would hold data that its key does not stand for.
        if file_states(task.sources(data_dir)) != states:
            raise UserError(f"the files of {task.info.name} were changed while they were read; run the same again")
        # Without this, a loss of power could leave the entry's name on the disk but not its
        # content.
        for path in (*partial.iterdir(), partial):
            sync_to_disk(path)
        # The rename makes the whole entry visible in one step.
        partial.replace(entry)


def _total_rows(parts: Iterable[Part]) -> int | None:
    expected = [part.expected for part in parts if part.expected is not None]
    return sum(expected) if len(expected) == len(SPLITS) else None


def cache_folder(data_dir: Path) -> Path:
    """Return the cache folder, made if needed.

    It is `$RMAAT_CACHE` if set, else `<data_dir>/.rmaat_cache`, else `~/.cache/rmaat` if the data
    folder is missing or read-only.

    Raises:
        UserError: if the folder cannot be made.
    """
    chosen = os.environ.get("RMAAT_CACHE")
    if chosen:
        folder = Path(chosen).expanduser()
    elif _is_writable(data_dir):
        folder = data_dir / ".rmaat_cache"
    else:
        folder = Path.home() / ".cache" / "rmaat"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); set RMAAT_CACHE to a writable folder") from error
    return folder


def _is_writable(folder: Path) -> bool:
    # A superuser may write anywhere, but a folder without any write bit is meant to stay as it is.
    any_write_bit = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    return folder.is_dir() and bool(folder.stat().st_mode & any_write_bit) and os.access(folder, os.W_OK)
