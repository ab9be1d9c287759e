"""The interface of a task: its description, the files it reads, and how they become token ids.

A task is one file in this folder and one line in `registry.py`. It knows nothing of models.
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
from rmaat.problems import SINGLE_LABEL

if TYPE_CHECKING:
    from rmaat.tasks.download import Download

TokenIds = NDArray[np.uint8] | NDArray[np.int16] | NDArray[np.int32]
"""Ids of one sequence, of the type that `token_dtype` returns for the vocabulary."""

EncodedLabel = int | float | NDArray[np.uint8] | NDArray[np.signedinteger[Any]]
"""A label as numbers.

It is the id of a class, a number to predict, or ones and zeros (C,) for a set of labels. For answers
at many positions it is an array (N,) with the id that follows the token before each, or -100."""

Row = tuple[Sequence[bytes | TokenIds], EncodedLabel]
"""An example: ids for each of `TaskInfo.columns`, and the label.

Ids are `bytes` or contiguous arrays of the stored type."""

Augmentation = Callable[[np.random.Generator, TokenIds], TokenIds]
"""A random change of one example that keeps its label and its length.

Its arguments are the source of all draws and the ids (N,), which it must not write to. It returns
ids (N,) of the same type."""

Progress = Callable[[int], None]
"""A function to call with the number of items done since its last call."""

ProgressBar = Callable[[str, int | None], AbstractContextManager[Progress]]
"""A function that shows a progress bar while the context is open.

Its arguments are a description of the work and the total number of items, None if that is not
known."""


def no_bar(description: str, total: int | None) -> AbstractContextManager[Progress]:
    """Show no progress bar."""
    return nullcontext(lambda done: None)


SPLITS = ("train", "validation", "test")
"""The parts of every data set, in the order of `TaskInfo.sizes`."""


@dataclass(frozen=True)
class TaskInfo:
    """The description of a task, known without its data.

    No id is reserved for padding: the attention mask marks the tokens.
    """

    name: str
    summary: str
    kind: Literal["expression", "text", "image", "memory"]
    vocab_size: int
    label_names: tuple[str, ...]
    """The classes or labels; for numbers to predict the name of their column.

    There are none if the answers are ids at many positions."""
    max_seq_len: int
    """Longer sequences are cut to this length unless the caller asks for another."""
    sizes: tuple[int, int, int]
    """Usual numbers of examples in train, validation and test."""
    source: str
    """The origin of the data, in one line."""
    generated: bool = False
    seeded: bool = False
    """Whether `load`'s seed changes the data set, by choosing the validation part."""
    pair: bool = False
    """Whether an example is two sequences; `max_seq_len` then limits each of them."""
    image_shape: tuple[int, int] | None = None
    """Rows and columns of an image, whose grey levels are tokens, row by row."""
    value_mean: float | None = None
    """Mean of the grey levels: as a real value, a level is (level - mean) / std.

    None if ids are no quantities."""
    value_std: float | None = None
    """Standard deviation of the grey levels; see `value_mean`."""
    segment_tokens: int | None = None
    """Tokens of a segment, if the examples have segments. Lengths and a curriculum count these."""
    segments_read_together: int = 1
    """Number of the task's segments that form one segment of the model."""
    problem_type: str = SINGLE_LABEL
    """What a label is, one of `rmaat.problems.PROBLEM_TYPES`."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of token ids."""
        return ("input_ids", "other_input_ids") if self.pair else ("input_ids",)

    @property
    def separator(self) -> int:
        """The id between the two sequences of a joined pair: one beyond the task's vocabulary."""
        return self.vocab_size


@dataclass(frozen=True)
class Part:
    """The examples of one split, before they are written to the cache."""

    rows: Iterable[Row]
    """Read once; a generator keeps only a few rows in memory."""
    notes: list[str] = field(default_factory=list)
    """What was dropped or skipped. Complete after the last row."""
    expected: int | None = None
    """Approximate number of rows, for a progress bar; None if it is not known."""
    later_label: int | None = None
    """Cut a longer row into several, of which all but the first have this label; None truncates it."""


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the narrowest stored type: uint8 up to 256 ids, int16 up to 32,768, else int32."""
    return np.dtype(np.uint8 if vocab_size <= 256 else np.int16 if vocab_size <= 2**15 else np.int32)


class Task(ABC):
    """A task: how raw files become a data set, and texts become token ids and back."""

    info: TaskInfo
    download: Download | None = None
    """The archive that `rmaat data TASK --download` fetches."""
    unit: str = "tokens"
    """What a length counts, for people."""
    has_labels: bool = True
    """Whether the labels are something to learn."""
    names_are_data: bool = True
    """True if the content of a data set depends on file names. A folder names the label of IMDb reviews."""
    option_names: tuple[str, ...] = ()
    """The settings of `rmaat.tasks.options.TaskOptions` that the task has."""

    def with_options(self, options: Mapping[str, Any]) -> Task:
        """Return the task with these settings, and defaults for the rest.

        Raises:
            UserError: if a value is not allowed.
        """
        assert not options
        return self

    def settings(self) -> dict[str, Any]:
        """Return what the data set depends on beside files, seed and length.

        The values are JSON, and part of the cache's key.
        """
        return {}

    def augmentation(self) -> Augmentation | None:
        """Return the random change of training examples, or None if the task has none.

        It must be picklable, because other processes may load the data. Each sequence
        of a pair is changed by itself.
        """
        return None

    @abstractmethod
    def sources(self, data_dir: Path) -> tuple[Path, ...]:
        """Return the files that this task reads, in a fixed order.

        Raises:
            UserError: if a file is missing; names it, the folders searched and the remedy.
        """

    @abstractmethod
    def build(self, data_dir: Path, seed: int) -> Mapping[str, Part]:
        """Read the files into `train`, `validation` and `test`, uncut and uncached.

        Raises:
            UserError: if a file is malformed, here or while rows are drawn; names file and line.
        """

    @abstractmethod
    def encode(self, text: str) -> TokenIds:
        """Return the token ids (N,) of a text, uncut.

        Raises:
            UserError: if the text is empty or has a symbol that is not in the vocabulary.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        """Return the text of token ids (N,), for people to read."""


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
        """Return the number of examples in all parts."""
        return self.train + self.validation + self.test


class GeneratedTask(Task):
    """A task whose files this package generates from a seed; see `rmaat.tasks.generate`."""

    file_names: tuple[str, ...]
    """The files that `write` makes."""
    bytes_per_example: int
    """Estimated size on disk, for the check of free space before the work."""
    generator_version: int
    """Raised whenever the same seed would give other data."""

    @property
    def folder_name(self) -> str:
        """Name of the files' folder, below the data folder."""
        return self.info.name

    @property
    def command(self) -> str:
        """The command that makes the files."""
        return f"rmaat data {self.info.name}"

    def generated_files(self, data_dir: Path) -> list[Path]:
        """Return the paths of the generated files, whether they exist or not."""
        return [data_dir / self.folder_name / name for name in self.file_names]

    def generate_remedy(self, data_dir: Path) -> str:
        """Return the advice, for an error message, to make the files."""
        return f"make it with `{self.command} --data_dir {data_dir}`"

    def released(self, data_dir: Path) -> bool:
        """Return whether published files are there, complete or not."""
        return False

    def is_there(self, data_dir: Path) -> bool:
        """Return whether files are there, generated or published."""
        return all(path.is_file() for path in self.generated_files(data_dir)) or self.released(data_dir)

    @abstractmethod
    def write(self, folder: Path, seed: int, counts: Counts, workers: int, progress: Progress) -> None:
        """Write `file_names` into an existing folder.

        The bytes depend on seed, counts and `settings` alone.
        """


def first_complete(layouts: Sequence[Sequence[Path]], remedy: str) -> tuple[Path, ...]:
    """Return the first of several layouts whose files all exist.

    Raises:
        UserError: if there is none; names the first missing file of the most complete layout.
    """
    missing = [[path for path in layout if not path.is_file()] for layout in layouts]
    for layout, lacking in zip(layouts, missing, strict=True):
        if not lacking:
            return tuple(layout)
    nearest = min(range(len(layouts)), key=lambda i: len(missing[i]) / len(layouts[i]))
    folders = dict.fromkeys(str(layout[0].parent) for layout in layouts)
    raise UserError(f"{missing[nearest][0]} is missing (looked in {', '.join(folders)}); {remedy}")
