"""Text as bytes, or as the ids of a Hugging Face tokenizer."""

from __future__ import annotations

import hashlib
import json
from abc import ABC
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rmaat.errors import UserError
from rmaat.tasks.base import Task, TokenIds, token_dtype
from rmaat.tasks.options import FilesOptions
from rmaat.tasks.text import VOCAB_SIZE, decode_bytes, encode_bytes


class TokenizedTask(Task, ABC):
    """A task of the user's own texts, whose tokens are bytes or the ids of `options.tokenizer`."""

    def __init__(self, options: FilesOptions) -> None:
        self.options = options

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id: 256 for bytes. The ids of a tokenizer may have gaps."""
        return VOCAB_SIZE if self._tokenizer is None else 1 + max(self._tokenizer.get_vocab().values())

    def tokenizer_checksum(self) -> str | None:
        """Return the SHA-256 of the tokenizer's vocabulary and rules; None without a tokenizer."""
        if self._tokenizer is None:
            return None
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        content = backend.to_str() if backend is not None else json.dumps(sorted(self._tokenizer.get_vocab().items()))
        return hashlib.sha256(content.encode()).hexdigest()

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer, if there is one, so that `folder` can be used as `tokenizer`."""
        if self._tokenizer is not None:
            self._tokenizer.save_pretrained(folder)

    def encode(self, text: str) -> TokenIds:
        """Return UTF-8 bytes, or the tokenizer's ids without special tokens, (N,)."""
        ids = self.known_ids(text)
        if len(ids) == 0:
            raise UserError("the text has nothing that the tokenizer knows")
        return ids

    def known_ids(self, text: str) -> TokenIds:
        """Return the ids of `encode`, (N,); none if the tokenizer knows nothing of the text."""
        tokenizer, text_bytes = self._tokenizer, encode_bytes(text)
        if tokenizer is None:
            return text_bytes
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return np.array(ids, token_dtype(self.vocab_size))

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        """Return the text of bytes or of the tokenizer's ids."""
        tokenizer = self._tokenizer
        return decode_bytes(ids) if tokenizer is None else tokenizer.decode(np.asarray(ids).tolist())

    @cached_property
    def _tokenizer(self) -> Any:
        return None if self.options.tokenizer is None else load_tokenizer(self.options.tokenizer)


def load_tokenizer(name: str) -> Any:
    """Return the tokenizer of that name or folder; raise `UserError` if it is not on this machine."""
    from transformers import AutoTokenizer

    try:
        # Without trust_remote_code, transformers asks on the terminal whether to run code from
        # the folder.
        return AutoTokenizer.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for a damaged or missing tokenizer
        raise UserError(
            f"tokenizer '{name}' is neither a folder with a tokenizer nor in the Hugging Face cache of this machine; "
            f"fetch it with `hf download {name}`, or leave --tokenizer out for bytes"
        ) from error
