"""Locks between processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class LockHeldError(Exception):
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, seconds: float | None = None) -> Iterator[None]:
    """Hold the lock file `path` while the context is open; the system frees it if the process dies.

    Args:
        path: the lock file, made if missing.
        seconds: the longest wait for another process that holds it; None waits without end.

    Raises:
        LockHeldError: if another process still holds it then.
        OSError: if the file cannot be made.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if seconds is None else seconds)
    except Timeout:
        raise LockHeldError(str(path)) from None
    try:
        yield
    finally:
        lock.release()
