"""Output folders of the verbs."""

from pathlib import Path

from rmaat.errors import UserError
from rmaat.machine.files import make_writable_folder


def writable_folder(folder: Path) -> Path:
    """Return the folder after creating it if it is missing.

    Verbs call this before they start to work.

    Raises:
        UserError: if the folder cannot be created or written to.
    """
    try:
        make_writable_folder(folder)
    except OSError as error:
        raise UserError(f"cannot write to the output folder {folder}: {error.strerror}; name another") from None
    return folder
