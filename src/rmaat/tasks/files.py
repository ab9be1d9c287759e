"""The user's own labelled documents: one text or two, from JSON Lines, CSV, TSV or Parquet.

A folder with a sub-folder of text files for each class is read too.

Tokens are bytes, or the ids of a tokenizer. Examples of train that repeat one of validation or
test, or an earlier one of train, are dropped and counted. Without a test file a tenth of each class
is held out of train, always the same examples. Without a validation file a tenth of the rest is held
out, chosen by the seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, lru_cache
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError, did_you_mean
from rmaat.problems import MULTI_LABEL, PROBLEM_SETTINGS, SINGLE_LABEL
from rmaat.tasks.base import EncodedLabel, Part, Row, TaskInfo
from rmaat.tasks.folders import class_files, read_class_files
from rmaat.tasks.labels import LABEL_COLUMNS, SEPARATOR, Label, LabelColumn
from rmaat.tasks.options import FilesOptions
from rmaat.tasks.records import (
    BadRow,
    MalformedRowError,
    Record,
    SkippedRows,
    read_records,
    refuse_with_advice,
    texts_of,
)
from rmaat.tasks.splits import digest, held_out, repeated, repetition_notes
from rmaat.tasks.text import VOCAB_SIZE, is_empty
from rmaat.tasks.tokenizer import TokenizedTask

INFO = TaskInfo(
    name="files",
    summary="your own labelled documents",
    kind="text",
    vocab_size=VOCAB_SIZE,
    label_names=(),
    max_seq_len=4096,
    sizes=(0, 0, 0),
    source="--train_file: .jsonl, .csv, .tsv, .parquet, or a folder of a folder per class",
    seeded=True,
)
"""The task before files are named."""

OTHER_FILES = ("validation_file", "test_file")
"""Options of the files that may be left out."""

TEST_SEED = 0
"""Seed of the examples that are held out for the test. Runs of all seeds have the same test part."""


class FilesTask(TokenizedTask):
    """The task of the user's own files.

    The train file is read for its labels when `info` is first asked for. With `label_names`, a
    trained model's, it is not read: it may have changed since.
    """

    names_are_data = False

    option_names = tuple(field.name for field in fields(FilesOptions))

    def __init__(self, options: FilesOptions, label_names: tuple[str, ...] | None = None) -> None:
        super().__init__(options)
        self.holds_out_test = options.test_file is None
        self._model_labels = label_names
        self._label_column = options.label_column or "label"
        self._problem_type = options.problem_type or SINGLE_LABEL
        self._labels = LABEL_COLUMNS[self._problem_type]
        self._text_columns = tuple(filter(None, (options.text_column or "text", options.other_text_column)))
        columns = (*self._text_columns, self._label_column)
        if len(set(columns)) != len(columns):
            raise UserError(f"text_column, other_text_column and label_column must differ, got {', '.join(columns)}")

    @cached_property
    def info(self) -> TaskInfo:  # type: ignore[override]
        """The task's description, with the labels and vocabulary of the files.

        Without a train file there are no labels.

        Raises:
            UserError: if the train file or the tokenizer is unusable.
        """
        info = replace(INFO, problem_type=self._problem_type)
        if self._model_labels is None and self.options.train_file is None:
            return info
        return replace(
            info,
            vocab_size=self.vocab_size,
            label_names=self._label_names,
            source=str(self.options.train_file),
            seeded=self.options.validation_file is None,
            pair=len(self._text_columns) == 2,
        )

    @cached_property
    def _label_names(self) -> tuple[str, ...]:
        """The labels of the model, or else of the train file. Unlike `info` they need no tokenizer."""
        return self._train_labels() if self._model_labels is None else self._model_labels

    def with_options(self, options: Mapping[str, Any]) -> FilesTask:
        """Return the task of these files; raises what `files_task` raises."""
        return files_task(FilesOptions(**options))

    def settings(self) -> dict[str, Any]:
        """Return the options without paths, and a checksum of the tokenizer."""
        columns = {name: value for name, value in asdict(self.options).items() if name.endswith("_column")}
        # Only if it is set, so that data sets of earlier versions keep their keys.
        optional: dict[str, Any] = {"skip_bad_rows": True} if self.options.skip_bad_rows else {}
        optional |= {"problem_type": self._problem_type} if self._problem_type != SINGLE_LABEL else {}
        optional |= {"holds_out_test": True} if self.holds_out_test else {}
        # In a folder, names are the labels. A digest of the files holds neither names nor parts.
        paths = self._paths()
        if any(path.is_dir() for path in paths):
            optional["folders"] = [[str(file.relative_to(path)) for file in _files_of(path)] for path in paths]
        return {"options": columns, "tokenizer": self.tokenizer_checksum(), **optional}

    def sources(self, data_dir: Path) -> tuple[Path, ...]:
        """Return the files of the options: train, validation, test; `data_dir` is not used."""
        return tuple(file for option in self._options() for file in _files_of(self._path(option)))

    def _options(self) -> tuple[str, ...]:
        return ("train_file", *(name for name in OTHER_FILES if getattr(self.options, name)))

    def _paths(self) -> tuple[Path, ...]:
        """Return the paths of the options, files or folders."""
        return tuple(self._path(option) for option in self._options())

    def build(self, data_dir: Path, seed: int) -> Mapping[str, Part]:
        """Read every file twice, as a stream: for labels and digests, then for the texts."""
        train, *others = self._paths()
        scans = {path: self._scan(path) for path in (train, *others)}
        in_other, again = self._repeated()
        if (in_other | again).all():
            raise UserError(
                f"train_file {train}: no example is left to train on: all {len(again):,} were dropped because they are "
                f"also in {self._files_that_repeat(scans, train, others)}; give a train_file with other examples"
            )
        held_out_test = self._held_out_test()
        usable = ~(in_other | again | held_out_test)
        validation = np.zeros(len(usable), bool)
        if self.options.validation_file is None:
            validation = self._hold_out(usable, seed, "validation")
        parts = {
            "train": self._part(train, usable & ~validation),
            "validation": self._part(train, validation, noted=False),
            "test": self._part(train, held_out_test, noted=False),
        }
        for option, path in zip(self._options()[1:], others, strict=True):
            parts[option.removesuffix("_file")] = self._part(path, np.ones(len(scans[path].labels), bool))
        if self.holds_out_test:
            parts["test"].notes.append("held out of train, because no test_file is given")
        elif len(others) == 2 and (in_both := set.intersection(*(set(scans[path].digests) for path in others))):
            parts["validation"].notes.append(f"{len(in_both):,} examples are in test too")
        parts["train"].notes.extend(repetition_notes(in_other, again, "examples"))
        if self._problem_type == SINGLE_LABEL and all(SEPARATOR in str(label) for label in scans[train].labels):
            recipe = PROBLEM_SETTINGS[MULTI_LABEL].recipe
            note = f"every label has a '{SEPARATOR}'; the recipe {recipe} reads such a label as several"
            parts["train"].notes.append(note)
        return parts

    def training_files(self) -> tuple[Path, ...]:
        """Return the files of train."""
        return _files_of(self._path("train_file"))

    def training_texts(self) -> Iterator[str]:
        """Yield the texts of the train file, without those held out for the test."""
        for (_, texts, _), left_out in zip(self._examples("train_file"), self._held_out_test(), strict=False):
            if not left_out:
                yield from texts

    def example_lengths(self, most: int) -> NDArray[np.int64]:
        """Return the tokens of each text of at most `most` examples of train, (E, columns).

        The examples are evenly spaced in the file.
        """
        step = -(-len(self._scan(self._path("train_file")).labels) // most)
        examples = islice(self._examples("train_file"), 0, None, step)
        return np.array([[self._length(text) for text in texts] for _, texts, _ in examples], np.int64)

    def _length(self, text: str) -> int:
        """Return the tokens of a text; 0 if it has a mistake, which `build` reports with its place."""
        try:
            return len(self.known_ids(text))
        except UserError:
            return 0

    def labelled_texts(self, part: Literal["train", "test"]) -> Iterator[tuple[Sequence[str], EncodedLabel]]:
        """Yield texts and encoded label of the examples of a part.

        Those held out for validation count as train. Examples of train that repeat one of validation
        or test, or an earlier one, are left out.
        """
        ids, option = self._label_ids(), "train_file"
        wanted: Iterable[bool]
        if part == "train":
            in_other, again = self._repeated()
            wanted = ~(in_other | again | self._held_out_test())
        elif self.holds_out_test:
            wanted = self._held_out_test()
        else:
            wanted, option = repeat(True), "test_file"
        for (_, texts, label), is_wanted in zip(self._examples(option), wanted, strict=False):
            if is_wanted and self._labels.unknown(label, ids) is None:
                yield texts, self._labels.encode(label, ids)

    def _examples(self, option: str) -> Iterator[tuple[str, list[str], Label]]:
        """Yield place, texts and label of every example of a file."""
        bad_row = SkippedRows() if self.options.skip_bad_rows else refuse_with_advice
        return _examples(self._path(option), self._text_columns, self._label_column, self._labels, bad_row)

    def _repeated(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return the masks of the examples of train that are in another file too, and of repetitions."""
        train, *others = self._paths()
        in_others = {digest for path in others for digest in self._scan(path).digests}
        return repeated(self._scan(train).digests, in_others)

    def _held_out_test(self) -> NDArray[np.bool_]:
        """Return the mask of the examples of train that are held out for the test; none with a test file."""
        in_other, again = self._repeated()
        if not self.holds_out_test:
            return np.zeros(len(again), bool)
        return self._hold_out(~(in_other | again), TEST_SEED, "test")

    def test_part(self) -> Part:
        """Return the test part, from the test file alone.

        Raises:
            UserError: if the file is missing, or is malformed or has a label that is not in `info`;
                names file and line.
        """
        notes: list[str] = []
        return Part(self._rows(self._path("test_file"), None, notes), notes)

    def _path(self, option: str) -> Path:
        name = getattr(self.options, option)
        if name is None:
            raise UserError(f"the task files needs {option}: a .jsonl, .csv, .tsv or .parquet file, or a folder")
        path = Path(name).expanduser()
        if path.is_dir():
            if self._problem_type != SINGLE_LABEL:
                raise UserError(f"{option} {path} is a folder, which has one class for each text; give a file")
            if len(self._text_columns) > 1:
                raise UserError(f"{option} {path} is a folder, which has no pairs; leave out other_text_column")
            class_files(path, option)
        elif not path.is_file():
            raise UserError(f"{option} {path} is missing; give the path of a file or a folder")
        return path

    def _scan(self, path: Path) -> _Scan:
        states = [file.stat() for file in _files_of(path)]
        skip = bool(self.options.skip_bad_rows)
        columns = (self._text_columns, self._label_column, self._labels)
        changes = tuple((state.st_size, state.st_mtime_ns, state.st_ino) for state in states)
        return _scan(path, *columns, skip, changes)

    def _train_labels(self) -> tuple[str, ...]:
        train = self._path("train_file")
        return self._labels.names(self._scan(train).labels, self._label_column, str(train))

    def _files_that_repeat(self, scans: Mapping[Path, _Scan], train: Path, others: Sequence[Path]) -> str:
        """Return, for a message, options and paths of the files that repeat examples of train."""
        return " or ".join(
            f"{option} {path}"
            for option, path in zip(self._options()[1:], others, strict=True)
            if not set(scans[path].digests).isdisjoint(scans[train].digests)
        )

    def _hold_out(self, usable: NDArray[np.bool_], seed: int, part: str) -> NDArray[np.bool_]:
        """Return the mask of the usable examples of train that are held out for a part."""
        train = self._path("train_file")
        chosen = held_out(self._labels.strata(self._scan(train).labels, self._label_ids()), usable, seed)
        if not chosen.any():
            dropped = int((~usable).sum())
            after = f" ({dropped:,} are repeated, or belong to another part)" if dropped else ""
            raise UserError(
                f"train_file {train}: no label has two examples{after}, so none can be held out for {part}; "
                f"give a {part}_file, or more examples"
            )
        return chosen

    def _label_ids(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self._label_names)}

    def _part(self, path: Path, chosen: NDArray[np.bool_], noted: bool = True) -> Part:
        notes: list[str] = []
        return Part(self._rows(path, chosen, notes, noted), notes, expected=int(chosen.sum()))

    def _rows(
        self, path: Path, chosen: NDArray[np.bool_] | None, notes: list[str], noted: bool = True
    ) -> Iterator[Row]:
        """Yield the chosen examples of a file, or all. Labels of the others are checked too.

        Args:
            path: the file.
            chosen: the mask of the examples, (E,); None means all.
            notes: the list to which the number of skipped rows is added at the end.
            noted: count the rows that cannot be read. Two parts of one file must not both count
                them.
        """
        ids = self._label_ids()
        skipped = SkippedRows()
        bad_row = skipped if self.options.skip_bad_rows else refuse_with_advice
        bad_read = bad_row if noted or bad_row is refuse_with_advice else SkippedRows()
        examples = _examples(path, self._text_columns, self._label_column, self._labels, bad_read)
        for (where, texts, label), wanted in zip(examples, repeat(True) if chosen is None else chosen, strict=False):
            if (unknown := self._labels.unknown(label, ids)) is not None:
                known = f"one of the model's; {did_you_mean(unknown, ids)}"
                lacking = known if self._model_labels is not None else f"in {self.options.train_file}"
                raise UserError(f"{path}, {where}: the label '{unknown[:40]}' is not {lacking}")
            if not wanted:
                continue
            try:
                encoded = [self.encode(text) for text in texts]
            except UserError as error:
                bad_row(MalformedRowError(path, where, error))
                continue
            yield encoded, self._labels.encode(label, ids)
        notes.extend(skipped.notes())


def files_task(options: FilesOptions) -> FilesTask:
    """Return the task of the user's own files, with its labels known.

    Raises:
        UserError: if a file is missing, the train file is unusable, or the tokenizer is not on this
            machine.
    """
    task = FilesTask(options)
    task.sources(Path())
    assert task.info.label_names
    return task


def _examples(
    path: Path, text_columns: Sequence[str], label_column: str, labels: LabelColumn, bad_row: BadRow
) -> Iterator[tuple[str, list[str], Label]]:
    """Yield place, texts and label of every example.

    Raises:
        UserError: if there is no example; see `read_records` for the other mistakes. A malformed
            text or label goes to `bad_row`.
    """
    empty = True
    for where, record in _records(path, text_columns, label_column, bad_row):
        try:
            texts = texts_of(path, where, record, text_columns)
        except MalformedRowError as error:
            bad_row(error)
            continue
        label = labels.parse(record[label_column])
        if label is None:
            value = record[label_column]
            expected = f"must be {labels.expected}, found {value!r:.40}{labels.advice(value)}"
            problem = f"column '{label_column}' {'is empty' if value == '' else expected}"
            bad_row(MalformedRowError(path, where, problem))
            continue
        empty = False
        yield where, texts, label
    if empty:
        reasons = "; ".join(bad_row.notes()) if isinstance(bad_row, SkippedRows) else ""
        raise UserError(f"{path} has no examples{f': {reasons}' if reasons else ''}")


def _records(path: Path, text_columns: Sequence[str], label_column: str, bad_row: BadRow) -> Iterator[Record]:
    """Yield the records of a file, or of a folder of a folder per class."""
    if not path.is_dir():
        yield from read_records(path, [*text_columns, label_column], bad_row)
        return
    for where, name, text in read_class_files(path, "the data"):
        if isinstance(text, UserError):
            bad_row(MalformedRowError(path, where, text))
        elif is_empty(text):
            bad_row(MalformedRowError(path, where, "the text is empty"))
        else:
            yield where, {text_columns[0]: text, label_column: name}


def _files_of(path: Path) -> tuple[Path, ...]:
    """Return the files of a folder of a folder per class, or the file."""
    return tuple(file for _, file in class_files(path, "the data")) if path.is_dir() else (path,)


@dataclass(frozen=True)
class _Scan:
    """Label and digest of every example of a file, in order."""

    labels: list[Label]
    digests: list[bytes]


# `info` and `build` scan the same files. Sizes and times are an argument so that a changed file is
# scanned again.
@lru_cache(maxsize=3)
def _scan(
    path: Path,
    text_columns: tuple[str, ...],
    label_column: str,
    labels: LabelColumn,
    skip: bool,
    changes: tuple[tuple[int, ...], ...],
) -> _Scan:
    scan = _Scan([], [])
    known: dict[Label, Label] = {}  # one object for each label, not one for each example
    bad_row = SkippedRows() if skip else refuse_with_advice
    for _, texts, label in _examples(path, text_columns, label_column, labels, bad_row):
        scan.labels.append(known.setdefault(label, label))
        scan.digests.append(digest([text.encode(errors="surrogatepass") for text in texts]))
    return scan


FILES = FilesTask(FilesOptions())
