"""Text as UTF-8 bytes: a token a byte, its own value as id."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.tasks.base import TokenIds

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
