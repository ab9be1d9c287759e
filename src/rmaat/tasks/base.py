"""What a task is: facts, the files it reads, and how they become token ids.

A task is one file in this folder and one line in `rmaat.tasks.TASKS`. It knows nothing of models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError

if TYPE_CHECKING:
    from rmaat.tasks.download import Download

TokenIds = NDArray[np.uint8] | NDArray[np.int16] | NDArray[np.int32]
"""Ids of one sequence, of the type that `token_dtype` gives for the vocabulary."""

Row = tuple[Sequence[bytes | TokenIds], int]
"""An example: ids for each of `TaskInfo.columns` (`bytes`, or contiguous arrays of the stored type), and the label."""

Progress = Callable[[int], None]
"""Told how many more examples are done."""

ProgressBar = Callable[[str, int | None], AbstractContextManager[Progress]]
"""Shows a bar while the context is open: what is being done, and with how many examples, None where that is not known."""


def no_bar(description: str, total: int | None) -> AbstractContextManager[Progress]:
    """The `ProgressBar` that shows nothing."""
    return nullcontext(lambda done: None)


SPLITS = ("train", "validation", "test")
"""The parts of every data set, in the order in which sizes are given."""


@dataclass(frozen=True)
class TaskInfo:
    """Facts about a task that need no data.

    No id is reserved for padding: the attention mask says what is a token.
    """

    name: str
    summary: str
    kind: Literal["expression", "text", "image", "memory"]
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
    pair: bool = False
    """Whether an example is two sequences; `max_seq_len` is then of each."""
    image_shape: tuple[int, int] | None = None
    """Rows and columns of an image, whose grey levels are read row by row."""
    value_mean: float | None = None
    """With `value_std`: how grey levels become real values, (level - mean) / std; None where ids are no quantities."""
    value_std: float | None = None
    segment_tokens: int | None = None
    """Tokens of a segment, if the task's examples have segments. Lengths and a curriculum count these."""
    segments_read_together: int = 1
    """Segments of the task that are one segment of the model."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of token ids."""
        return ("input_ids", "other_input_ids") if self.pair else ("input_ids",)

    @property
    def separator(self) -> int:
        """The id to put between the two sequences of a pair, one beyond the vocabulary: the model then has one more."""
        return self.vocab_size


@dataclass(frozen=True)
class Part:
    """One split on its way to disk.

    `rows` is passed over once and may be a generator, so that no more than a few rows are in memory. `notes` says what
    was dropped or skipped; it is read after the last row. `expected` is how many rows there will be, about, for a progress
    bar; None where that is not known.
    """

    rows: Iterable[Row]
    notes: list[str] = field(default_factory=list)
    expected: int | None = None


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The narrowest stored type: uint8 up to 256 ids, int16 up to 32,768, else int32."""
    return np.dtype(np.uint8 if vocab_size <= 256 else np.int16 if vocab_size <= 2**15 else np.int32)


class Task(ABC):
    """Raw files to a data set, and texts to token ids and back."""

    info: TaskInfo
    download: Download | None = None
    """Where `rmaat data TASK --download` gets the files."""
    option_names: tuple[str, ...] = ()
    """The settings of `rmaat.tasks.options.TaskOptions` that the task has."""

    def with_options(self, options: Mapping[str, Any]) -> Task:
        """Return the task with these of its settings, and defaults for the rest; raises `UserError` for a bad value."""
        assert not options
        return self

    def settings(self) -> dict[str, Any]:
        """What the data set depends on beside files, seed and length; JSON, part of the cache's key."""
        return {}

    @abstractmethod
    def sources(self, data_dir: Path) -> tuple[Path, ...]:
        """The files this task reads, in a fixed order.

        Raises `UserError` naming the missing file, the folders looked in and the remedy.
        """

    @abstractmethod
    def build(self, data_dir: Path, seed: int) -> Mapping[str, Part]:
        """Read the files into `train`, `validation` and `test`, uncut and uncached.

        Raises `UserError` naming file and line where a file is malformed, here or while rows are drawn.
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

    @property
    def folder_name(self) -> str:
        """The folder of the files, below the data folder."""
        return self.info.name

    @property
    def command(self) -> str:
        """The command that makes the files."""
        return f"rmaat data {self.info.name}"

    def released(self, data_dir: Path) -> bool:
        """Whether a published form of the files is there, whole or not."""
        return False

    def is_there(self, data_dir: Path) -> bool:
        """Whether there is something to read, generated or published, so that nothing need be generated."""
        own = data_dir / self.folder_name
        return all((own / name).is_file() for name in self.file_names) or self.released(data_dir)

    @abstractmethod
    def write(self, folder: Path, seed: int, counts: Counts, workers: int, progress: Progress) -> None:
        """Write `file_names` into an existing folder; the bytes depend on seed, counts and `settings` alone."""


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
