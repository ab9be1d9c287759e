"""What a task is: facts, the files it reads, and how they become token ids.

A task is one file in this folder and one line in `rmaat.tasks.TASKS`. It knows nothing of models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError

if TYPE_CHECKING:
    from datasets import DatasetDict

TokenIds = NDArray[np.uint8] | NDArray[np.int16]
"""Ids of one sequence: uint8 where the vocabulary fits, int16 where not."""

Progress = Callable[[int], None]
"""Told how many more examples are done."""

SPLITS = ("train", "validation", "test")
"""The parts of every data set, in the order in which sizes are given."""


@dataclass(frozen=True)
class TaskInfo:
    """Facts about a task that need no data.

    No id is reserved for padding: the attention mask says what is a token.
    """

    name: str
    summary: str
    kind: Literal["expression", "text", "image"]
    vocab_size: int
    label_names: tuple[str, ...]
    max_seq_len: int
    """Longer sequences are cut to this, unless the caller asks for another length."""
    sizes: tuple[int, int, int]
    """Usual numbers of examples in train, validation and test."""
    source: str
    """Where the data comes from, in one line."""
    generated: bool = False
    seeded: bool = False
    """Whether the seed given to `load` changes the data set (by choosing the validation part)."""


class Task(ABC):
    """Raw files to a data set, and texts to token ids and back."""

    info: TaskInfo

    @abstractmethod
    def sources(self, data_dir: Path) -> tuple[Path, ...]:
        """The files this task reads, in a fixed order.

        Raises `UserError` naming the missing file, the folders looked in and the remedy.
        """

    @abstractmethod
    def build(self, data_dir: Path, seed: int, max_seq_len: int) -> DatasetDict:
        """Read the files into `train`, `validation` and `test`, uncached.

        Columns: `input_ids`, a list of uint8 (int16 where the vocabulary exceeds 256), and `labels`, a `ClassLabel`.
        Raises `UserError` naming file and line where a file is malformed.
        """

    @abstractmethod
    def encode(self, text: str) -> TokenIds:
        """Token ids (N,) of a text given by the user, uncut; raises `UserError` for an empty text or a bad symbol."""

    @abstractmethod
    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        """The text of token ids (N,), for people to read."""


@dataclass(frozen=True)
class Counts:
    """Numbers of examples to generate; each at least 1."""

    train: int
    validation: int
    test: int

    def __post_init__(self) -> None:
        for split in SPLITS:
            if getattr(self, split) < 1:
                raise UserError(f"the {split} part needs at least 1 example, got {getattr(self, split)}")

    def total(self) -> int:
        """Examples in all parts."""
        return self.train + self.validation + self.test


class GeneratedTask(Task):
    """A task whose files this package writes itself, from a seed; `rmaat.tasks.generate` puts them into place."""

    file_names: tuple[str, ...]
    """The files `write` leaves."""
    bytes_per_example: int
    """Estimated size on disk, to refuse before the work when the disk is too full."""
    generator_version: int
    """Raised whenever the same seed would give other data."""

    @abstractmethod
    def write(self, folder: Path, seed: int, counts: Counts, workers: int, progress: Progress) -> None:
        """Write `file_names` into an existing folder; the bytes depend on seed and counts alone."""


def first_complete(candidates: Sequence[Sequence[Path]], remedy: str) -> tuple[Path, ...]:
    """The first of several layouts whose files all exist.

    Where none does: `UserError` about the first missing file of the layout that comes nearest, else of the first.
    """
    missing = [[path for path in layout if not path.is_file()] for layout in candidates]
    for layout, lacking in zip(candidates, missing, strict=True):
        if not lacking:
            return tuple(layout)
    nearest = min(range(len(candidates)), key=lambda i: len(missing[i]) / len(candidates[i]))
    folders = dict.fromkeys(str(layout[0].parent) for layout in candidates)
    raise UserError(f"{missing[nearest][0]} is missing (looked in {', '.join(folders)}); {remedy}")
