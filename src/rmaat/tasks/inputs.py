"""Inputs of predictions: text files, folders, files of records, standard input, pictures.

They are read as a stream, in order. A bad input becomes an example with a problem, so that the
others can be predicted.
"""

from __future__ import annotations

import lzma
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rmaat.errors import UserError
from rmaat.tasks.base import TaskInfo
from rmaat.tasks.records import MalformedRowError, Record, is_record_file, read_rows, texts_of
from rmaat.tasks.text import open_bytes

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Example:
    """An example without a label, or the reason why it cannot be read.

    Attributes:
        name: its file, FILE:LINE for a record, or "standard input".
        texts: one text, or two if the task has pairs; for a task of images the path of the picture.
        problem: the mistake in the input, without its name; there are no texts then.
        is_row: True for a row of a file of records.
    """

    name: str
    texts: tuple[str, ...] = ()
    problem: str | None = None
    is_row: bool = False


@dataclass(frozen=True)
class _Text:
    """The text of a file, or the path of a picture; it may be a half of a pair."""

    name: str
    text: str = ""
    problem: str | None = None


def read_inputs(
    inputs: Iterable[str], info: TaskInfo, columns: Sequence[str], left_out: Path | None = None
) -> Iterator[Example]:
    """Yield the examples of the inputs, in order, a few of them in memory at a time.

    An input is a text file (also .gz, .xz), a file of records, "-" for standard input, or a folder.
    A folder stands for all files beneath it, sorted by path. Hidden ones are left out, and links to
    folders are not followed. A task of pairs takes texts two by two, and a pair from each record. A
    task of images takes pictures.

    Args:
        inputs: paths or "-".
        info: the task.
        columns: the columns of the texts in records, one for each text of an example.
        left_out: a file that folders do not stand for, such as the output.
    """
    size = len(info.columns)
    texts: list[_Text] = []
    for item in inputs:
        for example in _examples_of(item, info, columns, left_out):
            if isinstance(example, Example):
                yield example
                continue
            texts.append(example)
            if len(texts) == size:
                yield _joined(texts)
                texts = []
    for text in texts:
        problem = f"a run on {info.name} takes files two by two; this one has no second"
        yield Example(text.name, problem=problem)


def _examples_of(item: str, info: TaskInfo, columns: Sequence[str], left_out: Path | None) -> Iterator[Example | _Text]:
    """Yield the texts of one input, and the examples of its records."""
    for name, problem in _files(item, left_out):
        if problem is not None:
            yield Example(name, problem=problem)
        elif info.kind == "image":
            # The task opens the picture.
            standard_input = "a picture cannot come from standard input" if name == STANDARD_INPUT else None
            yield _Text(_display_name(name), name, standard_input)
        elif is_record_file(Path(name)):
            yield from _rows(Path(name), info, columns)
        else:
            yield _text(name)


def _files(item: str, left_out: Path | None) -> Iterator[tuple[str, str | None]]:
    """Yield an input, or the files beneath it if it is a folder, each with its problem or None."""
    if not Path(item).is_dir():
        yield item, None
        return
    empty = True
    for name, problem in _beneath(item):
        if left_out is None or Path(name).resolve() != left_out:
            empty = False
            yield name, problem
    if empty:
        yield item, "the folder has no file"


def _beneath(folder: str) -> Iterator[tuple[str, str | None]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield folder, f"cannot be read: {error.strerror}"
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _beneath(entry.path)
        elif entry.is_file() or (entry.is_symlink() and not entry.is_dir()):
            yield entry.path, None


def _rows(path: Path, info: TaskInfo, columns: Sequence[str]) -> Iterator[Example]:
    if len(columns) != len(info.columns):
        problem = f"a run on {info.name} reads pairs, whose columns are not known; give --other_text_column"
        yield Example(str(path), problem=problem)
        return
    try:
        for row in read_rows(path, columns):
            yield _row(path, row, columns)
    except UserError as error:
        # Readers name the path in front of the mistake.
        yield Example(str(path), problem=str(error).removeprefix(str(path)).lstrip(" ,:"))


def _row(path: Path, row: Record | MalformedRowError, columns: Sequence[str]) -> Example:
    if isinstance(row, MalformedRowError):
        return Example(_row_name(path, row.where), problem=row.problem, is_row=True)
    where, record = row
    try:
        return Example(_row_name(path, where), tuple(texts_of(path, where, record, columns)), is_row=True)
    except MalformedRowError as error:
        return Example(_row_name(path, where), problem=error.problem, is_row=True)


def _row_name(path: Path, where: str) -> str:
    return f"{path}:{where.rpartition(' ')[2]}"


def _text(name: str) -> _Text:
    """Return the text of a file or of standard input."""
    shown = _display_name(name)
    try:
        return _Text(shown, read_text(name))
    except UserError as error:
        return _Text(shown, problem=str(error))


def read_text(name: str, content: bytes | None = None, most_bytes: int | None = None) -> str:
    """Return the text of a file, decompressed if its name ends in .gz or .xz.

    Args:
        name: the path of the file, or "-" for standard input.
        content: the bytes of the file, if they are in memory; nothing is opened then.
        most_bytes: most bytes of the text; None means no limit. No more are decompressed.

    Raises:
        UserError: if the file cannot be read, is damaged, not UTF-8, or too long; without its name.
    """
    try:
        with _opened(name, content) as file:
            text = file.read() if most_bytes is None else file.read(most_bytes + 1)
        if most_bytes is not None and len(text) > most_bytes:
            raise UserError(f"the text has more than {most_bytes:,} bytes")
        return text.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text: {error.reason} at byte {error.start}") from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot be read: {reason}") from error


def _opened(name: str, content: bytes | None) -> AbstractContextManager[IO[bytes]]:
    if content is None and name == STANDARD_INPUT:
        return nullcontext(sys.stdin.buffer)
    return open_bytes(Path(name), content)


def _joined(texts: Sequence[_Text]) -> Example:
    """Return the example of one text, or of the two texts of a pair."""
    name = ", ".join(text.name for text in texts)
    for text in texts:
        if text.problem is not None:
            return Example(name, problem=text.problem if len(texts) == 1 else f"{text.name}: {text.problem}")
    return Example(name, tuple(text.text for text in texts))


def _display_name(name: str) -> str:
    return "standard input" if name == STANDARD_INPUT else name
