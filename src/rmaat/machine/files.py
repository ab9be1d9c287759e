"""Files that are whole or not there, whatever interrupts their writing."""

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rmaat.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MEGABYTE = 2**20


@contextmanager
def replacing(path: Path, *, sync: bool = False) -> Iterator[IO[bytes]]:
    """Open a binary file that takes the place of `path` when the context ends without an error.

    After an error or an interrupt, `path` holds what it held before.

    Args:
        path: the file.
        sync: wait until the content is on the disk, so that it also survives a loss of power.

    Raises:
        OSError: if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Write text as UTF-8, whole or not at all; see `replacing`."""
    with replacing(path, sync=sync) as file:
        file.write(text.encode())


def write_json(path: Path, values: Any) -> None:
    """Write indented JSON, whole or not at all; see `replacing`."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_figure(path: Path, figure: "Figure", dpi: int) -> None:
    """Write a matplotlib figure as PNG, whole or not at all; see `replacing`."""
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=dpi)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Make an empty folder, and remove it at the end unless it was renamed.

    What a killed process left at `path` is removed first: the caller holds a lock.
    """
    shutil.rmtree(path, ignore_errors=True)
    try:
        path.mkdir()
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def delete(path: Path) -> None:
    """Remove a file, or a folder with its content; nothing happens if there is neither."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk: a name must not outlive its content."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders.
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def file_checksum(path: Path, progress: Callable[[int], object] = lambda done: None) -> str:
    """Return the SHA-256 of a file, in hexadecimal; `progress` is called with numbers of bytes.

    Raises:
        UserError: if the file cannot be read.
    """
    checksum = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(MEGABYTE):
                checksum.update(chunk)
                progress(len(chunk))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    return checksum.hexdigest()


def check_free_space(folder: Path, bytes_needed: int) -> None:
    """Raise `UserError` if the folder's disk has fewer bytes free."""
    free = shutil.disk_usage(folder).free
    if free < bytes_needed:
        raise UserError(
            f"{folder} needs about {bytes_needed / 1e6:,.0f} MB, but its disk has {free / 1e6:,.0f} MB free"
        )


def make_writable_folder(folder: Path) -> None:
    """Make a folder if it is missing, and write a page there; raises `OSError` if that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"0" * 4096)
