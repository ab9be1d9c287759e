"""Text as bytes, or as the ids of a tokenizer: one of Hugging Face, or one made from the texts.

Bytes are such a tokenizer too.
"""

from __future__ import annotations

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from rmaat.errors import UserError
from rmaat.machine.files import scratch_folder, sync_to_disk
from rmaat.machine.locks import locked
from rmaat.tasks.base import Task, TokenIds, token_dtype
from rmaat.tasks.cache import cache_folder
from rmaat.tasks.checksums import combined_checksum, remembered_checksums
from rmaat.tasks.options import FilesOptions
from rmaat.tasks.text import VOCAB_SIZE, check_not_empty, decode_bytes, encode_bytes

AUTOMATIC = "auto"
"""The name of the tokenizer that is made from the texts of the training file."""

LARGEST_VOCABULARY = 2**14
"""Most tokens of an automatic tokenizer."""

FEWEST_OCCURRENCES = 10
"""Two tokens become one if they stand side by side at least this often, so few texts give few tokens."""

BYTES_READ = 2**26
"""An automatic tokenizer is made from all texts of files up to this size, of larger files from some."""


class TokenizedTask(Task, ABC):
    """A task of the user's own texts, whose tokens are bytes or the ids of `options.tokenizer`."""

    @abstractmethod
    def training_files(self) -> Sequence[Path]:
        """Return the files of train."""

    @abstractmethod
    def training_texts(self) -> Iterator[str]:
        """Yield the texts of the files of train, without those held out for the test."""

    holds_out_test: bool = False
    """Whether the test part is held out of the files of train."""

    def __init__(self, options: FilesOptions) -> None:
        self.options = options
        self.unit = "bytes" if options.tokenizer is None else "tokens"

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
        check_not_empty(text)
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
        if self.options.tokenizer is None:
            return None
        automatic = self.options.tokenizer == AUTOMATIC
        return load_tokenizer(str(self._automatic_tokenizer()) if automatic else self.options.tokenizer)

    def _automatic_tokenizer(self) -> Path:
        """Return the folder of the tokenizer made from the files of train; make it if needed.

        It is made once for the same files and columns, and kept in the cache folder.
        """
        files = self.training_files()
        cache = cache_folder(Path())
        columns = [self.options.text_column, self.options.other_text_column, self.options.label_column]
        reading = [type(self).__name__, *columns, self.options.skip_bad_rows, self.holds_out_test]
        content = combined_checksum(remembered_checksums(files, cache))
        key = json.dumps([content, reading, LARGEST_VOCABULARY, FEWEST_OCCURRENCES, BYTES_READ])
        folder = cache / f"tokenizer-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        try:
            with locked(folder.with_suffix(".lock")):
                if not folder.is_dir():
                    # Odd, because the texts of pairs alternate.
                    step = -(-sum(path.stat().st_size for path in files) // BYTES_READ) | 1
                    tokenizer = byte_pair_tokenizer(islice(self.training_texts(), 0, None, step))
                    with scratch_folder(folder.with_suffix(".partial")) as partial:
                        tokenizer.save_pretrained(partial)
                        for path in (*partial.iterdir(), partial):
                            sync_to_disk(path)
                        partial.replace(folder)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be written ({error.strerror or error}); set RMAAT_CACHE to a writable folder"
            ) from error
        return folder


def byte_pair_tokenizer(texts: Iterable[str]) -> Any:
    """Return a byte-level BPE tokenizer whose tokens are frequent in these texts.

    Its ids decode to any text that they were made from; padding has the id of the byte 0. It has the 256 bytes, and at most
    `LARGEST_VOCABULARY` tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LARGEST_VOCABULARY,
        min_frequency=FEWEST_OCCURRENCES,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # A lone surrogate is no text. It is refused with its place when the data set is built.
    tokenizer.train_from_iterator((text.encode(errors="replace").decode() for text in texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        # A text that holds the character of the padding is text.
        split_special_tokens=True,
        pad_token=_byte_characters()[0],
    )


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
            f"fetch it with `hf download {name}`, or set --tokenizer null for bytes"
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
