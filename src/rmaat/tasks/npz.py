"""Read arrays from .npz files that may be damaged or malicious."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError

MOST_EXPANSION: Final = 100
"""Most bytes of content for each byte of an archive. Images and examples have far fewer."""

ALWAYS_READ: Final = 2**26
"""Bytes of content that are read whatever the size of the archive."""

_DAMAGES: Final = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
"""The exceptions of zipfile and NumPy's reader on altered bytes."""


def read_arrays(path: Path, names: Sequence[str], what: str, remedy: str) -> dict[str, NDArray[Any]]:
    """Return the named arrays of an .npz file; nothing in the file is unpickled.

    Raises:
        UserError: if the file is missing, truncated or altered; names the file, `what` it should
            be, and the remedy.
    """
    try:
        with zipfile.ZipFile(path) as file:
            content = sum(member.file_size for member in file.infolist())
            if content > max(ALWAYS_READ, MOST_EXPANSION * path.stat().st_size):
                raise zipfile.BadZipFile(f"it would unpack to {content:,} bytes")
            # Check the checksums before parsing: NumPy's reader stops before the end, so zipfile
            # would not compare them.
            damaged = file.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"the checksum of {damaged!r} does not match")
            return {name: _read_member(file, name) for name in names}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {remedy}") from error
    except _DAMAGES as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a whole {what} ({reason}); {remedy}") from error


def _read_member(file: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with file.open(f"{name}.npy") as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return array
