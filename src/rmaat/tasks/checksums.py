"""SHA-256 of files, remembered in the cache folder so that a large file is read only once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from rmaat.errors import UserError
from rmaat.machine.files import MEGABYTE, file_checksum, write_text
from rmaat.machine.locks import locked
from rmaat.tasks.base import ProgressBar, no_bar

FileStates = list[tuple[str, int, int, int, int]]
"""Absolute path, size, inode, modification time and change time of files."""


def combined_checksum(checksums: Sequence[str]) -> str:
    """Return the SHA-256, in hexadecimal, of files' checksums one after another."""
    return hashlib.sha256("".join(checksums).encode()).hexdigest()


def file_states(paths: Sequence[Path]) -> FileStates:
    """Return what shows that a file changed without reading it.

    Programs can set the modification time, but not the change time, so other content has another
    state.
    """
    return [
        (str(path.resolve()), status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        for path, status in ((path, path.stat()) for path in paths)
    ]


def remembered_checksums(paths: Sequence[Path], cache: Path, bar: ProgressBar = no_bar) -> list[str]:
    """Return the `file_checksum` of each file, from the cache folder if their states are known.

    `bar` is shown while files are read.

    Raises:
        UserError: if a file cannot be read or the cache folder cannot be written.
    """
    memo = cache / "checksums"
    states = file_states(paths)
    entry = memo / hashlib.sha256(json.dumps(states).encode()).hexdigest()[:32]
    try:
        checksums = _read_entry(entry, len(paths))
        if checksums is None:
            memo.mkdir(exist_ok=True)
            with locked(memo / ".lock"):
                # Another process may have read the files while this one waited for the lock.
                checksums = _read_entry(entry, len(paths))
                if checksums is None:
                    # A killed process may have left one; because this one holds the lock, no other
                    # is writing.
                    for leftover in memo.glob(".*.partial"):
                        leftover.unlink()
                    checksums = _compute(paths, sum(size for _, size, *_ in states), bar)
                    write_text(entry, "\n".join(checksums), sync=True)
        return checksums
    except OSError as error:
        raise UserError(
            f"{memo} cannot be written ({error.strerror or error}); set RMAAT_CACHE to a writable folder"
        ) from error


def _read_entry(entry: Path, count: int) -> list[str] | None:
    """Return the checksums of an entry; None if it is missing or not whole."""
    if not entry.is_file():
        return None
    checksums = entry.read_text(encoding="utf-8", errors="replace").split()
    return checksums if len(checksums) == count and {len(one) for one in checksums} == {64} else None


def _compute(paths: Sequence[Path], total_bytes: int, bar: ProgressBar) -> list[str]:
    bytes_done = 0
    with bar("hashing, MB", -(-total_bytes // MEGABYTE)) as progress:

        def report(count: int) -> None:
            nonlocal bytes_done
            before, bytes_done = bytes_done, bytes_done + count
            progress(bytes_done // MEGABYTE - before // MEGABYTE)

        return [file_checksum(path, report) for path in paths]
