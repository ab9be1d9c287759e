"""Text as UTF-8 bytes, whose values are token ids; files of lines, compressed or not."""

from __future__ import annotations

import gzip
import io
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

LONGEST_LINE = 2**26
"""Most bytes of a line. A longer one would need gigabytes of memory once it is parsed."""


def is_empty(text: str) -> bool:
    """Return True for a text of no characters, or of nothing but white space."""
    return not text or text.isspace()


def check_not_empty(text: str) -> None:
    """Raise `UserError` if a text that is to be labelled is empty; see `is_empty`."""
    if is_empty(text):
        raise UserError("the text is empty; it has no character but white space")


def encode_bytes(text: str) -> NDArray[np.uint8]:
    """Return the UTF-8 bytes (N,) of a text.

    Raises:
        UserError: if the text is empty or has a lone surrogate.
    """
    if not text:
        raise UserError("the text is empty; at least one character is needed")
    try:
        return np.frombuffer(text.encode(), np.uint8)
    except UnicodeEncodeError as error:
        raise UserError(f"the text has a lone surrogate at character {error.start}, which UTF-8 cannot hold") from error


def decode_bytes(ids: Sequence[int] | TokenIds) -> str:
    """Return the text of bytes (N,); a truncated character becomes the replacement character."""
    return bytes(np.asarray(ids, np.uint8)).decode(errors="replace")


class BytesTask(Task, ABC):
    """A task whose tokens are the bytes of texts."""

    unit = "bytes"

    def encode(self, text: str) -> NDArray[np.uint8]:
        """Return UTF-8 bytes (N,)."""
        check_not_empty(text)
        return encode_bytes(text)

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        """Return the text; a truncated character becomes the replacement character."""
        return decode_bytes(ids)


def open_bytes(path: Path, content: bytes | None = None) -> IO[bytes]:
    """Open a file for reading, decompressed if its name ends in .gz or .xz.

    Args:
        path: the file.
        content: its bytes, if they are in memory.
    """
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix)
    if opener is None:
        return path.open("rb") if content is None else io.BytesIO(content)
    return opener(path if content is None else io.BytesIO(content), "rb")  # type: ignore[operator]


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file without their ends, numbered from 1; .gz and .xz are decompressed.

    Raises:
        UserError: if the file cannot be read, is truncated or damaged, or a line is longer than
            `LONGEST_LINE`.
    """
    # Opening a FIFO would wait for ever.
    if path.exists() and not path.is_file():
        raise UserError(f"{path} cannot be read (it is no file)")
    number = 0
    try:
        with open_bytes(path) as file:
            # A small compressed file may hold a line of any length.
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise UserError(f"{path}, line {number}: longer than {LONGEST_LINE:,} bytes")
                yield number, line.rstrip(b"\r\n")
    except (lzma.LZMAError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise UserError(
            f"{path}, after line {number}: not a whole {path.suffix} file ({error}); fetch it again"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error


def utf8(path: Path, number: int, text: bytes) -> bytes:
    """Return the same bytes if they are UTF-8; raises `UserError` naming file and line if not."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {number}: byte {error.start} of the text is not UTF-8") from error
    return text
