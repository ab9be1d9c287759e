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
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from rmaat.errors import UserError
from rmaat.machine.files import scratch_folder, sync_to_disk, write_text
from rmaat.machine.locks import locked
from rmaat.tasks.arrow import read_part, write_part
from rmaat.tasks.base import SPLITS, Part, ProgressBar, Task, no_bar
from rmaat.tasks.facts import PartFacts, facts

if TYPE_CHECKING:
    from datasets import DatasetDict

FORMAT = 3
"""Raised whenever the same files would give other data sets."""

MEGABYTE = 2**20

logger = logging.getLogger(__name__)


def load_cached(task: Task, data_dir: Path, seed: int, max_seq_len: int, bar: ProgressBar = no_bar) -> DatasetDict:
    """The task's data set from the cache, built first where it is missing or damaged.

    Raises what `sources` and `build` raise, and `UserError` where the cache cannot be written or a file changes meanwhile.
    """
    sources = task.sources(data_dir)
    states = file_states(sources)
    root = cache_folder(data_dir)
    settings = {
        "task": task.info.name,
        "format": FORMAT,
        "max_seq_len": max_seq_len,
        "seed": seed if task.info.seeded else None,
        "sources": checksum_of(remembered_checksums(sources, root, bar)),
        # A file's name may say what is in it, as the folder of a review does its label.
        "names": [str(path.relative_to(data_dir)) for path in sources if path.is_relative_to(data_dir)],
        **task.settings(),
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    final = root / f"{task.info.name}-{key}"
    dataset = _opened(final)
    if dataset is None:
        try:
            with locked(final.with_suffix(".lock")):
                dataset = _opened(final)  # another process may have built it while this one waited
                if dataset is None:
                    _build_into(final, task, data_dir, seed, max_seq_len, bar, states)
                    dataset = _opened(final)
        except OSError as error:
            raise UserError(
                f"{root}: the built data set cannot be written ({error.strerror or error}); "
                "set RMAAT_CACHE to a writable folder with room"
            ) from error
    assert dataset is not None, final
    for split, part in dataset.items():
        logger.info("%s %s: %s", task.info.name, split, facts(part).sentence())
    return dataset


def _opened(folder: Path) -> DatasetDict | None:
    """The data set that was built into a folder; None where it is not there or not whole."""
    from datasets import DatasetDict

    dataset = DatasetDict()
    for split in SPLITS:
        try:
            of_part = PartFacts.from_json((folder / f"{split}.json").read_text(encoding="utf-8"))
            dataset[split] = read_part(folder / f"{split}.arrow", of_part)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException):
            return None  # what altered JSON or Arrow raises
        if len(dataset[split]) != of_part.examples:
            return None
    return dataset


def _build_into(
    final: Path, task: Task, data_dir: Path, seed: int, max_seq_len: int, bar: ProgressBar, states: FileStates
) -> None:
    if final.exists():
        logger.warning("%s is damaged and is built again", final)
        shutil.rmtree(final)
    with scratch_folder(final.with_suffix(".partial")) as partial:
        with bar(f"reading {task.info.name}", None):
            parts = task.build(data_dir, seed)
        with bar(f"building {task.info.name}", _expected(parts.values())) as progress:
            for split, part in parts.items():
                of_part = write_part(partial / f"{split}.arrow", task.info, part, max_seq_len, progress)
                (partial / f"{split}.json").write_text(of_part.to_json(), encoding="utf-8")
        # The key was made from what the files held before.
        if file_states(task.sources(data_dir)) != states:
            raise UserError(f"the files of {task.info.name} were changed while they were read; run the same again")
        for path in (*partial.iterdir(), partial):
            sync_to_disk(path)
        partial.replace(final)


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


def file_checksum(path: Path, told: Callable[[int], object] = lambda done: None) -> str:
    """SHA-256 of a file, in hexadecimal; `told` how many more bytes are done. `UserError` where it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(MEGABYTE):
                found.update(chunk)
                told(len(chunk))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    return found.hexdigest()


def checksum_of(checksums: Sequence[str]) -> str:
    """SHA-256, in hexadecimal, of files' checksums one after another."""
    return hashlib.sha256("".join(checksums).encode()).hexdigest()


FileStates = list[tuple[str, int, int, int, int]]


def file_states(paths: Sequence[Path]) -> FileStates:
    """What tells a changed file without reading it: absolute path, size, inode, times of content and of inode.

    The last cannot be set by the tools that set the one before, so that no other content can have the same state.
    """
    return [
        (str(path.resolve()), of.st_size, of.st_ino, of.st_mtime_ns, of.st_ctime_ns)
        for path, of in ((path, path.stat()) for path in paths)
    ]


def remembered_checksums(paths: Sequence[Path], root: Path, bar: ProgressBar = no_bar) -> list[str]:
    """`file_checksum` of each file, kept below the cache's folder `root` by the files' states, with `bar` where they are read.

    So large files are read once only. Raises `UserError` where one cannot be read or the folder cannot be written.
    """
    memo = root / "checksums"
    states = file_states(paths)
    remembered = memo / hashlib.sha256(json.dumps(states).encode()).hexdigest()[:32]
    try:
        found = _recalled(remembered, len(paths))
        if found is None:
            memo.mkdir(exist_ok=True)
            with locked(memo / ".lock"):
                found = _recalled(remembered, len(paths))  # another process may have read the files in between
                if found is None:
                    found = _checksums(paths, sum(size for _, size, *_ in states), bar)
                    write_text(remembered, "\n".join(found), sync=True)
        return found
    except OSError as error:
        raise UserError(
            f"{memo} cannot be written ({error.strerror or error}); set RMAAT_CACHE to a writable folder"
        ) from error


def _recalled(remembered: Path, count: int) -> list[str] | None:
    """The checksums in a file of the memo; None where it is not there or not whole."""
    if not remembered.is_file():
        return None
    found = remembered.read_text(encoding="utf-8", errors="replace").split()
    return found if len(found) == count and {len(one) for one in found} == {64} else None


def _checksums(paths: Sequence[Path], size: int, bar: ProgressBar) -> list[str]:
    done = 0
    with bar("hashing, MB", -(-size // MEGABYTE)) as progress:

        def told(count: int) -> None:
            nonlocal done
            before, done = done, done + count
            progress(done // MEGABYTE - before // MEGABYTE)

        return [file_checksum(path, told) for path in paths]
