"""Free space, and waiting until files are on the disk."""

import os
import shutil
from pathlib import Path

from rmaat.errors import UserError


def check_free_space(folder: Path, bytes_needed: int) -> None:
    """Raise `UserError` if the folder's disk has fewer bytes free."""
    free = shutil.disk_usage(folder).free
    if free < bytes_needed:
        raise UserError(
            f"{folder} needs about {bytes_needed / 1e6:,.0f} MB, but its disk has {free / 1e6:,.0f} MB free"
        )


def sync_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
