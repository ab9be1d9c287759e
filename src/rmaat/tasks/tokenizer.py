"""Text as bytes, or as the ids of a Hugging Face tokenizer; bytes as such a tokenizer."""

from __future__ import annotations

import copy
import hashlib
import json
from abc import ABC
from collections.abc import Sequence
from functools import cached_property
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

    def hub_tokenizer(self, max_length: int, separator: int | None = None) -> Any:
        """Return the task's tokenizer as one of transformers, to be stored beside a model.

        Args:
            max_length: the length at which a call with `truncation=True` truncates.
            separator: the id between two texts of one sequence; it is used for bytes only.
        """
        if self._tokenizer is None:
            return byte_tokenizer(max_length, separator)
        tokenizer = copy.deepcopy(self._tokenizer)
        tokenizer.model_max_length = max_length
        # The models take padding on the right only.
        tokenizer.padding_side = "right"
        return tokenizer

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
    """Return the tokenizer of that name or folder, which adds no special tokens to a text.

    Raises:
        UserError: if it is not on this machine.
    """
    from transformers import AutoTokenizer

    try:
        # Without trust_remote_code, transformers asks on the terminal whether to run code from
        # the folder.
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for a damaged or missing tokenizer
        raise UserError(
            f"tokenizer '{name}' is neither a folder with a tokenizer nor in the Hugging Face cache of this machine; "
            f"fetch it with `hf download {name}`, or leave --tokenizer out for bytes"
        ) from error
    return _without_special_tokens(tokenizer)


def _without_special_tokens(tokenizer: Any) -> Any:
    """Return a tokenizer that adds no special tokens by default either, so that pipelines add none."""
    from transformers import PreTrainedTokenizerFast

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not tokenizer.num_special_tokens_to_add():
        return tokenizer
    backend = copy.deepcopy(backend)
    backend.post_processor = None
    # The classes of single models would build their post-processor again when they are loaded.
    return PreTrainedTokenizerFast(tokenizer_object=backend, **tokenizer.special_tokens_map)


def byte_tokenizer(max_length: int, separator: int | None = None) -> Any:
    """Return a `PreTrainedTokenizerFast` whose ids are the UTF-8 bytes of a text.

    It needs no code of this package to be loaded. Padding has the id 0.

    Args:
        max_length: the length at which a call with `truncation=True` truncates.
        separator: the id between the two texts of a pair, 256; None for no pairs.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    characters = _byte_characters()
    backend = Tokenizer(models.BPE(vocab={character: byte for byte, character in enumerate(characters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    special = {"pad_token": characters[0]}
    if separator is not None:
        special["sep_token"] = "<separator>"
        backend.add_special_tokens([AddedToken(special["sep_token"], normalized=False)])
        backend.post_processor = processors.TemplateProcessing(
            single="$A", pair="$A <separator> $B", special_tokens=[(special["sep_token"], separator)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        # A text that holds the characters of a special token is bytes as well.
        split_special_tokens=True,
        **special,
    )


def _byte_characters() -> list[str]:
    """Return the printable character that stands for each byte in `tokenizers.ByteLevel`, (256,)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (chr(256 + i) for i in range(256))
    return [chr(byte) if byte in printable else next(others) for byte in range(VOCAB_SIZE)]
