"""Folders that a verb writes to."""

from pathlib import Path

from rmaat.errors import UserError
from rmaat.machine.files import make_writable_folder


def writable_folder(folder: Path) -> Path:
    """The folder, made where it is missing; raises `UserError` where it cannot be written to, before any work is done."""
    try:
        make_writable_folder(folder)
    except OSError as error:
        raise UserError(f"cannot write to the output folder {folder}: {error.strerror}; name another") from None
    return folder
