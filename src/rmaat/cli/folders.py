"""Folders that a verb writes to."""

from pathlib import Path

from rmaat.errors import UserError


def writable_folder(folder: Path) -> Path:
    """The folder, made where it is missing; raises `UserError` where it cannot be written to, before any work is done."""
    probe = folder / ".write-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to the output folder {folder}: {error.strerror}; name another") from None
    return folder
