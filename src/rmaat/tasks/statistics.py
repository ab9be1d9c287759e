"""What is in a part of a data set: classes, lengths, how many were cut, what was dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


@dataclass(frozen=True)
class Lengths:
    """Tokens per sequence of one column before cutting, and how many sequences were `cut` to `max_seq_len`."""

    mean: float
    p50: float
    p95: float
    longest: int
    cut: int
    max_seq_len: int

    @classmethod
    def of(cls, lengths: NDArray[np.int64], max_seq_len: int) -> Lengths:
        """From lengths (B,), B at least 1."""
        p50, p95 = np.percentile(lengths, (50, 95))
        cut = int((lengths > max_seq_len).sum())
        return cls(round(float(lengths.mean()), 2), float(p50), float(p95), int(lengths.max()), cut, max_seq_len)


@dataclass(frozen=True)
class PartFacts:
    """One part: how many examples, of which classes, how long (by column), and what else is to be said."""

    examples: int
    classes: Mapping[str, int]
    lengths: Mapping[str, Lengths]
    notes: Sequence[str]

    def to_json(self) -> str:
        """All of it, on one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> PartFacts:
        """What `to_json` wrote."""
        found = json.loads(text)
        lengths = {column: Lengths(**of_column) for column, of_column in found.pop("lengths").items()}
        return cls(lengths=lengths, **found)

    def sentence(self) -> str:
        """The same for people, on one line."""
        lengths = [
            f"{column}: mean length {of.mean:,.0f}, longest {of.longest:,}, {of.cut:,} cut to {of.max_seq_len:,}"
            for column, of in self.lengths.items()
        ]
        return "; ".join([f"{self.examples:,} examples", *lengths, *self.notes])


HEADINGS = ("part", "examples", "tokens in", "p50", "p95", "longest", "cut")
"""The columns of `table`."""

MOST_CLASSES_LISTED = 10


def facts(part: Dataset) -> PartFacts:
    """The facts of a part that `rmaat.tasks.load` gave; after a selection still those of the whole part."""
    return PartFacts.from_json(part.info.description)


def summary(dataset: DatasetDict) -> dict[str, PartFacts]:
    """The facts of every part."""
    return {split: facts(part) for split, part in dataset.items()}


def table(parts: Mapping[str, PartFacts]) -> list[tuple[str, ...]]:
    """Rows under `HEADINGS`, one for each part and token column."""
    return [
        (
            split,
            f"{of_part.examples:,}",
            column,
            f"{of.p50:,.0f}",
            f"{of.p95:,.0f}",
            f"{of.longest:,}",
            f"{of.cut:,} to {of.max_seq_len:,}",
        )
        for split, of_part in parts.items()
        for column, of in of_part.lengths.items()
    ]


def remarks(parts: Mapping[str, PartFacts]) -> list[str]:
    """One line for the classes of each part, many classes told by their extremes, and one for each note."""
    return [
        f"{split}: {line}" for split, of_part in parts.items() for line in (_balance(of_part.classes), *of_part.notes)
    ]


def _balance(classes: Mapping[str, int]) -> str:
    if len(classes) <= MOST_CLASSES_LISTED:
        return ", ".join(f"{name}: {count:,}" for name, count in classes.items())
    return f"{len(classes)} classes of {min(classes.values()):,} to {max(classes.values()):,} examples"
