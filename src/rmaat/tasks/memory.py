"""The base of generated tasks that need memory: the answer depends on segments before the question.

Shape suffixes: B examples, N tokens of an example.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.problems import IGNORED, NEXT_TOKEN
from rmaat.tasks.base import (
    SPLITS,
    Counts,
    GeneratedTask,
    Part,
    Progress,
    Row,
    TaskInfo,
    TokenIds,
    first_complete,
    token_dtype,
)
from rmaat.tasks.npz import read_arrays
from rmaat.tasks.options import MemoryOptions
from rmaat.values import LARGEST_INT, checked, kinds

DRAWN_TOKENS = 2**22
"""Tokens drawn at a time.

Another number gives other data from the same seed, so it needs a new `generator_version`."""


class MemoryTask(GeneratedTask):
    """A task whose examples are segments, the last of which holds the question.

    If the labels are ids that follow tokens, any segment may hold questions.

    Examples of a part have different numbers of segments, each equally probable. Each variant of
    the task has its own folder, whose name has the settings that differ from their defaults.

    Unlike in other tasks, examples of train that are in another part are not dropped. There are few
    short examples (`remember` with one pair of single symbols has 256), so every part has most of
    them, and dropping them would leave train without short ones.
    """

    name: ClassVar[str]
    available: ClassVar[Mapping[str, int]]
    """Defaults of the task's settings, names and ranges as in `rmaat.tasks.options.MemoryOptions`."""
    file_names = tuple(f"{split}.npz" for split in SPLITS)
    generator_version = 1

    def __init__(self, options: Mapping[str, int] | None = None) -> None:
        """Raise `UserError` for a setting out of its range."""
        self.option_names = tuple(self.available)
        self.options = {**self.available, **(options or {})}
        for name, value in self.options.items():
            checked(name, value, kinds(MemoryOptions)[name])
        self.info = self.describe()
        if self.info.max_seq_len > LARGEST_INT:
            raise UserError(
                f"these settings make examples of {self.info.max_seq_len:,} tokens; at most {LARGEST_INT:,}"
            )
        self.bytes_per_example = self.info.max_seq_len * token_dtype(self.info.vocab_size).itemsize + 6

    @abstractmethod
    def describe(self) -> TaskInfo:
        """Return the task's description for the settings; `max_seq_len` is whole segments."""

    @property
    @abstractmethod
    def segments(self) -> range:
        """Numbers of segments of the examples of a part."""

    @property
    def labels_tokens(self) -> bool:
        """Whether each token has a label, rather than each example."""
        return self.info.problem_type == NEXT_TOKEN

    @property
    def segment_tokens(self) -> int:
        """Tokens of a segment."""
        assert self.info.segment_tokens is not None
        return self.info.segment_tokens

    @abstractmethod
    def draw(self, rng: np.random.Generator, count: int, segments: int) -> tuple[TokenIds, NDArray[np.int64]]:
        """Draw `count` examples of exactly `segments` segments, also of more than a part has.

        Returns:
            Ids (B, N), uint8 or int16 by the vocabulary, and labels: (B,), or (B, N) if they are
            the ids that follow tokens.

        Raises:
            UserError: if no example has so many segments.
        """

    def length(self, segments: int) -> int:
        """Return the number of tokens of an example of `segments` segments."""
        return segments * self.segment_tokens

    @property
    def folder_name(self) -> str:
        """The task's name and the settings that differ from their defaults.

        An example is `remember_pairs50_key_size2`.
        """
        return "_".join([self.name, *(f"{name}{value}" for name, value in self._changed().items())])

    @property
    def command(self) -> str:
        """The command that makes the files."""
        return " ".join([f"rmaat data {self.name}", *(f"--{name} {value}" for name, value in self._changed().items())])

    def _changed(self) -> dict[str, int]:
        return {name: self.options[name] for name, default in self.available.items() if self.options[name] != default}

    def with_options(self, options: Mapping[str, Any]) -> MemoryTask:
        """Return the variant of the task with these settings.

        Raises:
            UserError: if a value is out of its range.
        """
        return type(self)(options)

    def settings(self) -> dict[str, Any]:
        """Return all settings."""
        return {"options": self.options}

    def sources(self, data_dir: Path) -> tuple[Path, ...]:
        """Return the archives of the three parts."""
        return first_complete([self.generated_files(data_dir)], self.generate_remedy(data_dir))

    def build(self, data_dir: Path, seed: int) -> Mapping[str, Part]:
        """Read the archives; the seed is not used."""
        remedy = f"make it again with `{self.command} --data_dir {data_dir} --overwrite true`"
        return {split: self._part(path, remedy) for split, path in zip(SPLITS, self.sources(data_dir), strict=True)}

    def _part(self, path: Path, remedy: str) -> Part:
        arrays = read_arrays(path, ("ids", "lengths", "labels"), "archive of examples", remedy)
        ids, lengths, labels = arrays["ids"], arrays["lengths"], arrays["labels"]
        sound = (
            [ids.dtype, lengths.dtype, labels.dtype]
            == [token_dtype(self.info.vocab_size), np.dtype(np.int32), np.dtype(np.int16)]
            and (ids.ndim, lengths.ndim, labels.ndim) == (1, 1, 1)
            and len(lengths) > 0
            and lengths.min() > 0
            and lengths.sum(dtype=np.int64) == len(ids)
            and len(labels) == len(ids if self.labels_tokens else lengths)
            and ids.max() < self.info.vocab_size
            and labels.max() < (self.info.vocab_size if self.labels_tokens else len(self.info.label_names))
            and (labels.min() >= 0 or (self.labels_tokens and (labels[labels < 0] == IGNORED).all()))
        )
        if not sound:
            raise UserError(f"{path}: not the examples of {self.folder_name}; {remedy}")
        return Part(_rows(ids, lengths, labels, self.labels_tokens), expected=len(lengths))

    def write(self, folder: Path, seed: int, counts: Counts, workers: int, progress: Progress) -> None:
        """Draw each part from its own seed, independent of the sizes of other parts."""
        for i, split in enumerate(SPLITS):
            rng = np.random.default_rng((seed, i))
            ids, lengths_B, labels = self._draw_part(rng, getattr(counts, split), progress)
            np.savez(folder / f"{split}.npz", ids=ids, lengths=lengths_B, labels=labels)

    def _draw_part(
        self, rng: np.random.Generator, count: int, progress: Progress
    ) -> tuple[TokenIds, NDArray[np.int32], NDArray[np.int16]]:
        """Draw examples of random lengths: ids one after another, lengths (B,) and labels.

        Labels are (B,), or those of all tokens one after another.
        """
        segments_B = rng.integers(self.segments.start, self.segments.stop, count)
        numbers, number_index_B = np.unique(segments_B, return_inverse=True)
        lengths_B = np.array([self.length(int(number)) for number in numbers], np.int32)[number_index_B]
        starts_B = np.cumsum(lengths_B, dtype=np.int64) - lengths_B
        ids = np.empty(lengths_B.sum(dtype=np.int64), token_dtype(self.info.vocab_size))
        labels = np.empty(len(ids) if self.labels_tokens else count, np.int16)
        # Examples of equal length are drawn together, and then stored at the rows that have that
        # length.
        for i, number in enumerate(numbers.tolist()):
            rows, length = np.flatnonzero(number_index_B == i), self.length(number)
            step = max(1, DRAWN_TOKENS // length)
            for drawn in (rows[start : start + step] for start in range(0, len(rows), step)):
                places_BN = starts_B[drawn, None] + np.arange(length)
                ids[places_BN], labels[places_BN if self.labels_tokens else drawn] = self.draw(rng, len(drawn), number)
                progress(len(drawn))
        return ids, lengths_B, labels


def _rows(ids: TokenIds, lengths: NDArray[np.int32], labels: NDArray[np.int16], labels_tokens: bool) -> Iterator[Row]:
    ends = np.cumsum(lengths, dtype=np.int64)
    of_examples = np.split(labels, ends[:-1]) if labels_tokens else labels.tolist()
    for start, end, label in zip((ends - lengths).tolist(), ends.tolist(), of_examples, strict=True):
        yield (ids[start:end],), label


class LetterTask(MemoryTask):
    """A memory task with one character for each token; white space between segments is optional."""

    letters: ClassVar[str]
    """The character of each id, in order."""
    allowed: ClassVar[str]
    """The characters, for an error message."""

    def encode(self, text: str) -> NDArray[np.uint8]:
        """Return the ids (N,) of one whole example."""
        symbols, segment_tokens, shortest = "".join(text.split()), self.segment_tokens, self.length(self.segments[0])
        for symbol in symbols:
            if symbol not in self.letters:
                raise UserError(f"'{symbol}' is no symbol of {self.name}; allowed: {self.allowed}")
        if len(symbols) < shortest or (len(symbols) - shortest) % segment_tokens:
            raise UserError(
                f"an example of {self.folder_name} has {shortest} symbols, or {segment_tokens} more for each further "
                f"segment; this text has {len(symbols)}"
            )
        return np.array([self.letters.index(symbol) for symbol in symbols], np.uint8)

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        """Return the symbols of ids (N,), with a space between segments."""
        symbols = "".join(self.letters[i] for i in ids)
        starts = range(0, len(symbols), self.segment_tokens)
        return " ".join(symbols[start : start + self.segment_tokens] for start in starts)
