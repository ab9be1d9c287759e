"""Built data sets on disk: built once, never seen half-written, shared by processes.

A data set is built into a folder with a temporary name, under a lock, and renamed into place in one step. A process
killed on the way leaves a temporary folder that no one reads and that the next build of the same data set removes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from rmaat.errors import UserError
from rmaat.tasks.arrow import read_part, write_part
from rmaat.tasks.base import SPLITS, Part, ProgressBar, Task, no_bar
from rmaat.tasks.facts import PartFacts

if TYPE_CHECKING:
    from datasets import DatasetDict

FORMAT = 3
"""Raised whenever the same files would give other data sets."""

logger = logging.getLogger(__name__)


def load_cached(task: Task, data_dir: Path, seed: int, max_seq_len: int, bar: ProgressBar = no_bar) -> DatasetDict:
    """The task's data set from the cache, built first where it is missing; raises what `sources` and `build` raise."""
    from datasets import DatasetDict

    sources = task.sources(data_dir)
    root = cache_folder(data_dir)
    settings = {
        "task": task.info.name,
        "format": FORMAT,
        "max_seq_len": max_seq_len,
        "seed": seed if task.info.seeded else None,
        "sources": remembered_checksum(sources, memo=root / "checksums"),
        **task.settings(),
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    final = root / f"{task.info.name}-{key}"
    if not final.is_dir():
        with FileLock(final.with_suffix(".lock")):
            if not final.is_dir():  # another process may have built it while this one waited
                _build_into(final, task, data_dir, seed, max_seq_len, bar)
    dataset = DatasetDict()
    for split in SPLITS:
        facts = PartFacts.from_json((final / f"{split}.json").read_text())
        dataset[split] = read_part(final / f"{split}.arrow", facts)
        logger.info("%s %s: %s", task.info.name, split, facts.sentence())
    return dataset


def _build_into(final: Path, task: Task, data_dir: Path, seed: int, max_seq_len: int, bar: ProgressBar) -> None:
    partial = final.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        with bar(f"reading {task.info.name}", None):
            parts = task.build(data_dir, seed)
        with bar(f"building {task.info.name}", _expected(parts.values())) as progress:
            for split, part in parts.items():
                facts = write_part(partial / f"{split}.arrow", task.info, part, max_seq_len, progress)
                (partial / f"{split}.json").write_text(facts.to_json())
        partial.replace(final)
    except OSError as error:
        raise UserError(
            f"{final.parent}: the built data set cannot be written ({error.strerror or error}); "
            "set RMAAT_CACHE to a folder with room"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _expected(parts: Iterable[Part]) -> int | None:
    known = [part.expected for part in parts if part.expected is not None]
    return sum(known) if len(known) == len(SPLITS) else None


def cache_folder(data_dir: Path) -> Path:
    """Where built data sets go, made if needed.

    `$RMAAT_CACHE` where set, else `<data_dir>/.rmaat_cache`, else, where the data folder is absent or
    read-only, `~/.cache/rmaat`. Raises `UserError` where that cannot be made.
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
    # A superuser may write anywhere; a folder without any write bit is meant to be left alone all the same.
    anyone = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    return folder.is_dir() and bool(folder.stat().st_mode & anyone) and os.access(folder, os.W_OK)


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; raises `UserError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error


def checksum(paths: Sequence[Path]) -> str:
    """SHA-256, in hexadecimal, of the files' own checksums one after another."""
    return hashlib.sha256("".join(map(file_checksum, paths)).encode()).hexdigest()


def remembered_checksum(paths: Sequence[Path], memo: Path) -> str:
    """`checksum`, kept in the folder `memo` by the files' absolute paths, sizes and times of change.

    So large files are read once only. Raises `UserError` where one cannot be read or `memo` cannot be written.
    """
    states = [(str(path.resolve()), (status := path.stat()).st_size, status.st_mtime_ns) for path in paths]
    remembered = memo / hashlib.sha256(json.dumps(states).encode()).hexdigest()[:32]
    if remembered.is_file():
        return remembered.read_text()
    try:
        memo.mkdir(exist_ok=True)
        with FileLock(memo / ".lock"):
            if not remembered.is_file():  # another process may have read the files while this one waited
                partial = memo / ".partial"
                partial.write_text(checksum(paths))
                partial.replace(remembered)
            return remembered.read_text()
    except OSError as error:
        raise UserError(
            f"{memo} cannot be written ({error.strerror or error}); set RMAAT_CACHE to a writable folder"
        ) from error
