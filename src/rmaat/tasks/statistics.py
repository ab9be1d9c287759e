"""Part statistics: numbers of examples, classes and lengths, and what was dropped.

They are stored as JSON beside each part's Arrow file, `train.json` beside `train.arrow`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import printable
from rmaat.problems import IGNORED, MULTI_LABEL, NEXT_TOKEN, REGRESSION
from rmaat.tasks.base import EncodedLabel, TaskInfo

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from rich.console import Console


@dataclass(frozen=True)
class LengthStatistics:
    """Tokens per sequence of one column, uncut, and how many were `cut` to `max_seq_len`."""

    mean: float
    p50: float
    p95: float
    longest: int
    cut: int
    max_seq_len: int

    @classmethod
    def of(cls, lengths: NDArray[np.int64], max_seq_len: int) -> LengthStatistics:
        """Compute the statistics of lengths (B,), B at least 1."""
        p50, p95 = np.percentile(lengths, (50, 95))
        cut = int((lengths > max_seq_len).sum())
        return cls(round(float(lengths.mean()), 2), float(p50), float(p95), int(lengths.max()), cut, max_seq_len)


@dataclass(frozen=True)
class NumberStatistics:
    """Mean, standard deviation and range of numbers to predict."""

    mean: float
    std: float
    least: float
    most: float


class LabelCounts:
    """The statistics of a part's labels, added up a batch at a time.

    Args:
        info: the task.
    """

    def __init__(self, info: TaskInfo) -> None:
        self.examples = 0
        self._names = info.label_names
        self._problem = info.problem_type
        self._counts = np.zeros(len(info.label_names), np.int64)
        self._numbers = array("d")
        self._answers = 0

    def add(self, labels: Sequence[EncodedLabel]) -> None:
        """Add the labels of some examples."""
        self.examples += len(labels)
        if self._problem == REGRESSION:
            self._numbers.extend(float(label) for label in labels)
        elif self._problem == NEXT_TOKEN:
            self._answers += sum(int(np.count_nonzero(np.asarray(label) != IGNORED)) for label in labels)
        elif self._problem == MULTI_LABEL:
            self._counts += np.array(labels, np.int64).sum(0)
        else:
            self._counts += np.bincount(np.array(labels, np.int64), minlength=len(self._counts))

    def classes(self) -> dict[str, int]:
        """Return the number of examples by class or label; nothing for numbers and for ids of tokens."""
        if self._problem in (REGRESSION, NEXT_TOKEN):
            return {}
        return dict(zip(self._names, self._counts.tolist(), strict=True))

    def numbers(self) -> NumberStatistics | None:
        """Return the statistics of numbers to predict; None for classes."""
        if self._problem != REGRESSION:
            return None
        values = np.frombuffer(self._numbers)
        return NumberStatistics(*(float(f(values)) for f in (np.mean, np.std, np.min, np.max)))

    def answers(self) -> int | None:
        """Return the number of answers at all positions of all examples; None if an example has one label."""
        return self._answers if self._problem == NEXT_TOKEN else None


@dataclass(frozen=True)
class PartStatistics:
    """Statistics of one part: examples, examples by class, lengths by token column, and notes.

    An example with several labels counts for each. Numbers to predict have `numbers` and no classes.
    Examples with answers at many positions have the number of `answers` and no classes.
    """

    examples: int
    classes: Mapping[str, int]
    lengths: Mapping[str, LengthStatistics]
    notes: Sequence[str]
    numbers: NumberStatistics | None = None
    answers: int | None = None

    def to_json(self) -> str:
        """Return all values as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> PartStatistics:
        """Return the statistics that `to_json` wrote.

        Raises:
            ValueError, LookupError, TypeError, AttributeError: if the text is something else.
        """
        values = json.loads(text)
        lengths = {column: LengthStatistics(**of_column) for column, of_column in values.pop("lengths").items()}
        numbers = values.pop("numbers", None)
        return cls(lengths=lengths, numbers=None if numbers is None else NumberStatistics(**numbers), **values)

    def evaluation_notes(self) -> list[str]:
        """Return the notes, and a line on the sequences that were cut, for one who reads a result."""
        return [
            *self.notes,
            *(
                f"{of.cut:,} of {self.examples:,} sequences were cut to {of.max_seq_len:,} tokens, as in training"
                for of in self.lengths.values()
                if of.cut
            ),
        ]

    def sentence(self) -> str:
        """Return the examples, lengths and notes on one line, for a log."""
        lengths = [
            f"{column}: mean length {of.mean:,.0f}, longest {of.longest:,}, {of.cut:,} cut to {of.max_seq_len:,}"
            for column, of in self.lengths.items()
        ]
        return "; ".join([f"{self.examples:,} examples", *lengths, *self.notes])


TABLE_HEADINGS = ("part", "examples", "tokens in", "p50", "p95", "longest", "cut")
"""Headings of `table_rows`."""

MOST_CLASSES_LISTED = 10


def part_statistics(part: Dataset) -> PartStatistics:
    """Return the statistics of a part that `rmaat.tasks.load` returned.

    A selected or shuffled part has the statistics of the whole part.

    Raises:
        ValueError: if the part was not built by this package.
    """
    path = Path(part.cache_files[0]["filename"]).with_suffix(".json") if part.cache_files else None
    if path is None or not path.is_file():
        raise ValueError(f"no statistics at {path}: only parts that rmaat.tasks.load returned have them")
    return PartStatistics.from_json(path.read_text())


def dataset_statistics(dataset: DatasetDict) -> dict[str, PartStatistics]:
    """Return the statistics of every part; see `part_statistics`."""
    return {split: part_statistics(part) for split, part in dataset.items()}


def table_rows(parts: Mapping[str, PartStatistics]) -> list[tuple[str, ...]]:
    """Return one row under `TABLE_HEADINGS` for each part and token column."""
    return [
        (
            split,
            f"{part.examples:,}",
            column,
            f"{of.p50:,.0f}",
            f"{of.p95:,.0f}",
            f"{of.longest:,}",
            f"{of.cut:,} to {of.max_seq_len:,}",
        )
        for split, part in parts.items()
        for column, of in part.lengths.items()
    ]


def remarks(parts: Mapping[str, PartStatistics]) -> list[str]:
    """Return one line on the labels of each part, and one for each note."""
    return [f"{split}: {line}" for split, part in parts.items() for line in (label_summary(part), *part.notes)]


def print_statistics(
    parts: Mapping[str, PartStatistics], console: Console, unit: str = "tokens", with_cut: bool = True
) -> None:
    """Print the table and the remarks.

    Args:
        parts: the statistics by part.
        console: the output.
        unit: what a length counts.
        with_cut: print how many sequences were cut, too.
    """
    from rich.table import Table

    columns = len(TABLE_HEADINGS) if with_cut else TABLE_HEADINGS.index("cut")
    headings = [heading.replace("tokens", unit) for heading in TABLE_HEADINGS[:columns]]
    listing = Table(*headings, box=None, pad_edge=False)
    for row in table_rows(parts):
        listing.add_row(*row[:columns])
    console.print(listing)
    for line in remarks(parts):
        console.print(printable(line))


def label_summary(part: PartStatistics) -> str:
    """Return the examples of each class, the range of numbers or the number of answers, in a line."""
    classes, numbers = part.classes, part.numbers
    if part.answers is not None:
        return f"{part.answers:,} answers, {part.answers / part.examples:,.4g} an example"
    if numbers is not None:
        return f"{numbers.least:.6g} to {numbers.most:.6g}, mean {numbers.mean:.6g}, deviation {numbers.std:.6g}"
    if len(classes) <= MOST_CLASSES_LISTED:
        return ", ".join(f"{name}: {count:,}" for name, count in classes.items())
    return f"{len(classes)} classes of {min(classes.values()):,} to {max(classes.values()):,} examples"
