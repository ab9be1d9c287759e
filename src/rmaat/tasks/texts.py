"""The user's own unlabelled texts, for pre-training: files, or folders of files, of any size.

A text becomes blocks, and a block becomes sequences: nothing is cut off. Some blocks are held out
for validation.
"""

from __future__ import annotations

import codecs
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.tasks.base import Part, Row, TaskInfo, token_dtype
from rmaat.tasks.folders import TEXT_SUFFIXES, files_beneath, kind_of
from rmaat.tasks.options import FilesOptions
from rmaat.tasks.records import READERS, read_records
from rmaat.tasks.text import VOCAB_SIZE, open_bytes
from rmaat.tasks.tokenizer import TokenizedTask

BLOCK_CHARACTERS = (2**8, 2**16)
"""Fewest and most characters of a block."""

BLOCKS = 40
"""Blocks that short texts are divided into, so that some can be held out."""

FIRST, LATER = 0, 1
"""Labels of the sequences: one begins a text, or goes on where the one before it in the part ended."""

HELD_OUT = 20
"""One in so many blocks is held out for validation."""

INFO = TaskInfo(
    name="texts",
    summary="your own texts without labels, for `rmaat pretrain`",
    kind="text",
    vocab_size=VOCAB_SIZE,
    label_names=("first", "later"),
    max_seq_len=4096,
    sizes=(0, 0, 0),
    source="--train_file: a text file, .jsonl, .csv, .tsv or .parquet, or a folder of them",
    seeded=True,
)


class TextsTask(TokenizedTask):
    """The task of the user's own unlabelled texts."""

    has_labels = False
    names_are_data = False

    option_names = ("train_file", "validation_file", "text_column", "tokenizer")

    @cached_property
    def info(self) -> TaskInfo:  # type: ignore[override]
        """The task's description, with the vocabulary of the tokenizer."""
        seeded = self.options.validation_file is None
        source = self.options.train_file or INFO.source
        return replace(INFO, vocab_size=self.vocab_size, source=source, seeded=seeded)

    def with_options(self, options: Mapping[str, Any]) -> TextsTask:
        """Return the task of these files."""
        return TextsTask(FilesOptions(**options))

    def settings(self) -> dict[str, Any]:
        """Return the column of texts, the kinds of the files by part, and the tokenizer's checksum."""
        # The digest of the files holds neither their names nor where train ends.
        kinds = [[_reader(path) or "text" for path in self._files(option)] for option in self._options()]
        return {
            "text_column": asdict(self.options)["text_column"],
            "files": kinds,
            "labels": self.info.label_names,
            "tokenizer": self.tokenizer_checksum(),
        }

    def sources(self, data_dir: Path) -> tuple[Path, ...]:
        """Return the files of train, then those of validation; `data_dir` is not used.

        Raises:
            UserError: if train_file is not given, a file is missing or in both parts, or a folder
                has no text.
        """
        if self.options.train_file is None:
            raise UserError("the task texts needs train_file: a file of text, or a folder of such files")
        parts = [self._files(option) for option in self._options()]
        resolved = [{path.resolve() for path in part} for part in parts]
        for path in sorted(set.intersection(*resolved))[:1] if len(parts) > 1 else []:
            raise UserError(f"{path} is in both train_file and validation_file; move it out of train_file")
        return tuple(path for part in parts for path in part)

    def build(self, data_dir: Path, seed: int) -> Mapping[str, Part]:
        """Return parts that stream the files, after one pass over those of train for their lengths."""
        self.sources(data_dir)
        if self.options.validation_file is None:
            size, is_held_out = self._hold_out(seed)
            train, validation = (self._part("train_file", size, is_held_out == out) for out in (False, True))
        else:
            train, validation = (self._part(option, BLOCK_CHARACTERS[1], None) for option in self._options())
        # Pre-training has no test; every data set has three parts.
        test = Part([([np.zeros(1, token_dtype(self.vocab_size))], FIRST)])
        return {"train": train, "validation": validation, "test": test}

    def training_files(self) -> list[Path]:
        """Return the files of train."""
        return self._files("train_file")

    def training_texts(self) -> Iterator[str]:
        """Yield the texts of train in blocks, with those held out for validation."""
        for _, pieces in self._texts("train_file"):
            yield from _blocks(pieces, BLOCK_CHARACTERS[1])

    def _options(self) -> list[str]:
        return ["train_file"] if self.options.validation_file is None else ["train_file", "validation_file"]

    def _files(self, option: str) -> list[Path]:
        path = Path(getattr(self.options, option)).expanduser()
        if path.is_file():
            return [path]
        if not path.is_dir():
            raise UserError(f"{option} {path} is missing; give the path of a file or a folder")
        kinds = (*TEXT_SUFFIXES, *READERS)
        files = files_beneath(path, kinds)
        if not files:
            raise UserError(f"{option}: the folder {path} has no file whose name ends in one of {', '.join(kinds)}")
        return files

    def _hold_out(self, seed: int) -> tuple[int, NDArray[np.bool_]]:
        """Return the characters of a block, and the mask of the blocks that are held out."""
        lengths = array("q", (sum(map(len, pieces)) for _, pieces in self._texts("train_file")))
        fewest, most = BLOCK_CHARACTERS
        # Hold out blocks, not whole texts: there may be a single text. Large blocks keep most of a
        # validation example's neighbours out of train; short texts need small ones to have several.
        size = min(max(sum(lengths) // BLOCKS, fewest), most)
        count = int(-(-np.frombuffer(lengths, np.int64) // size).sum()) if lengths else 0
        if count < 2:
            raise UserError(
                f"train_file {self.options.train_file}: the texts are too short to hold some of them out for "
                f"validation; give more than {fewest} characters, or a validation_file"
            )
        is_held_out = np.zeros(count, bool)
        is_held_out[np.random.default_rng(seed).permutation(count)[: -(-count // HELD_OUT)]] = True
        return size, is_held_out

    def _part(self, option: str, size: int, chosen: NDArray[np.bool_] | None) -> Part:
        expected = None if chosen is None else int(chosen.sum())
        return Part(self._rows(option, size, chosen), expected=expected, later_label=LATER)

    def _rows(self, option: str, size: int, chosen: NDArray[np.bool_] | None) -> Iterator[Row]:
        blocks = (
            (where, number, block)
            for where, pieces in self._texts(option)
            for number, block in enumerate(_blocks(pieces, size))
        )
        before = -1
        for index, (where, number, block) in enumerate(blocks):
            if chosen is not None and not chosen[index]:
                continue
            try:
                ids = self.known_ids(block)
            except UserError as error:
                raise UserError(f"{where}: {error}") from error
            if len(ids):
                yield [ids], LATER if number and before == index - 1 else FIRST
                before = index

    def _texts(self, option: str) -> Iterator[tuple[str, Iterator[str]]]:
        """Yield the place of each text that is not empty, and the text in pieces that fit into memory."""
        column = self.options.text_column or "text"
        for path in self._files(option):
            if _reader(path) is None:
                yield str(path), _pieces(path)
                continue
            for where, record in read_records(path, [column]):
                text = record[column]
                if not isinstance(text, str | None):
                    raise UserError(f"{path}, {where}: column '{column}' is no text but {type(text).__name__}")
                if text:
                    yield f"{path}, {where}", iter((text,))


def _reader(path: Path) -> str | None:
    """Return the suffix of a file of records, or None for a file that is one text."""
    kind = kind_of(path)
    return kind if kind in READERS else None


def _pieces(path: Path) -> Iterator[str]:
    """Yield the text of a file in pieces; .gz and .xz are decompressed."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = 0
    try:
        with open_bytes(path) as file:
            while content := file.read(BLOCK_CHARACTERS[1]):
                yield decoder.decode(content)
                position += len(content)
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 after byte {position + error.start}") from error
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _blocks(pieces: Iterator[str], size: int) -> Iterator[str]:
    """Yield the text of the pieces in blocks of `size` characters; the last may be shorter."""
    rest = ""
    for piece in pieces:
        # Pieces end where the reader's buffer ended, blocks at multiples of the size.
        rest += piece
        whole = len(rest) // size * size
        yield from (rest[start : start + size] for start in range(0, whole, size))
        rest = rest[whole:]
    if rest:
        yield rest


TEXTS = TextsTask(FilesOptions())
