"""Text as UTF-8 bytes: a token a byte, its own value as id; and files of lines, compressed or not."""

from __future__ import annotations

import gzip
import lzma
import zlib
from abc import ABC
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.tasks.base import Task, TokenIds

VOCAB_SIZE = 256


def encode_bytes(text: str) -> NDArray[np.uint8]:
    """UTF-8 bytes (N,) of a text; raises `UserError` where it is empty or cannot be written as UTF-8."""
    if not text:
        raise UserError("the text is empty; at least one character is needed")
    try:
        return np.frombuffer(text.encode(), np.uint8)
    except UnicodeEncodeError as error:
        raise UserError(f"the text has a lone surrogate at character {error.start}, which UTF-8 cannot hold") from error


def decode_bytes(ids: Sequence[int] | TokenIds) -> str:
    """The text of bytes (N,); a character cut at the end becomes the replacement character."""
    return bytes(np.asarray(ids, np.uint8)).decode(errors="replace")


class BytesTask(Task, ABC):
    """A task whose tokens are the bytes of texts."""

    def encode(self, text: str) -> NDArray[np.uint8]:
        """UTF-8 bytes (N,)."""
        return encode_bytes(text)

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        """The text; a character cut at the end becomes the replacement character."""
        return decode_bytes(ids)


def open_bytes(path: Path) -> IO[bytes]:
    """A file for reading, unpacked on the way where its name ends in .gz or .xz."""
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    return opener(path, "rb")  # type: ignore[operator]


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The numbered lines of a file, from 1, without their ends; .gz and .xz are unpacked on the way.

    Raises `UserError` where it cannot be read, is cut off or damaged.
    """
    number = 0
    try:
        with open_bytes(path) as file:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip(b"\r\n")
    except (lzma.LZMAError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise UserError(
            f"{path}, after line {number}: not a whole {path.suffix} file ({error}); fetch it again"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error


def utf8(path: Path, number: int, text: bytes) -> bytes:
    """The same bytes, once they are known to be UTF-8; else `UserError` naming file and line."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {number}: byte {error.start} of the text is not UTF-8") from error
    return text
