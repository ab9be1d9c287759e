"""Your own labelled documents: one text or two, from JSON Lines, CSV, TSV or Parquet, as bytes or through a tokenizer.

Examples of train that repeat one of validation or test, or an earlier one of train, are dropped and counted. Without a
validation file a tenth of each class is held out of train, chosen by the seed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError, did_you_mean
from rmaat.tasks.base import Part, Row, Task, TaskInfo, TokenIds, token_dtype
from rmaat.tasks.records import read_records
from rmaat.tasks.splits import digest, held_out, repeated, repetition_notes
from rmaat.tasks.text import VOCAB_SIZE, decode_bytes, encode_bytes


@dataclass(kw_only=True)
class FilesOptions:
    """Where one's own labelled documents are, for the task files.

    Args:
        train_file: files: .jsonl, .csv, .tsv (also .gz, .xz) or .parquet to train on.
        validation_file: files: the same for validation; null holds out a tenth of each class.
        test_file: files: the same for the test.
        text_column: files: column of the text ('text').
        other_text_column: files: column of the second text, for pairs.
        label_column: files: column of the label, a string or a whole number ('label').
        tokenizer: files: name or folder of a Hugging Face tokenizer on this machine; null means bytes.
    """

    train_file: str | None = None
    validation_file: str | None = None
    test_file: str | None = None
    text_column: str | None = None
    other_text_column: str | None = None
    label_column: str | None = None
    tokenizer: str | None = None

    @classmethod
    def of(cls, settings: object) -> Self:
        """From any object with attributes of these names: parsed flags, a run config."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class _Scan:
    """What must be known of a file before its rows are written: label and digest of every example, in order."""

    labels: list[str]
    digests: list[bytes]


class FilesTask(Task):
    """The user's own files.

    `info` is read off the train file when it is first asked for, unless `label_names` are given: those of a model hold whatever
    the train file says by now.
    """

    option_names = tuple(field.name for field in fields(FilesOptions))

    def __init__(self, options: FilesOptions, label_names: tuple[str, ...] | None = None) -> None:
        self.options = options
        self._of_model = label_names
        label = options.label_column or "label"
        texts = [options.text_column or "text", *filter(None, [options.other_text_column])]
        if len({label, *texts}) != 1 + len(texts):
            raise UserError(
                f"text_column, other_text_column and label_column must differ, got {', '.join([*texts, label])}"
            )
        self._texts, self._label = texts, label

    @cached_property
    def info(self) -> TaskInfo:  # type: ignore[override]
        """Labels and vocabulary of the files; without a train file, none yet.

        Raises `UserError` where the train file or the tokenizer is unusable.
        """
        if self._of_model is None and self.options.train_file is None:
            return _INFO
        return replace(
            _INFO,
            vocab_size=self.vocab_size,
            label_names=self._train_labels() if self._of_model is None else self._of_model,
            source=str(self.options.train_file),
            seeded=self.options.validation_file is None,
            pair=len(self._texts) == 2,
        )

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id: 256 for bytes. The ids of a tokenizer may have gaps."""
        return VOCAB_SIZE if self._tokenizer is None else 1 + max(self._tokenizer.get_vocab().values())

    def with_options(self, options: Mapping[str, Any]) -> FilesTask:
        """Return the task of these files; raises what `files_task` raises."""
        return files_task(FilesOptions(**options))

    def settings(self) -> dict[str, Any]:
        """The options, and a checksum of the tokenizer."""
        return {"options": asdict(self.options), "tokenizer": self.tokenizer_checksum()}

    def tokenizer_checksum(self) -> str | None:
        """SHA-256, in hexadecimal, of the tokenizer's vocabulary and rules; None where there is none."""
        return _tokenizer_checksum(self._tokenizer)

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer, where there is one, so that `folder` can be given as `tokenizer`."""
        if self._tokenizer is not None:
            self._tokenizer.save_pretrained(folder)

    def sources(self, data_dir: Path) -> tuple[Path, ...]:
        """The files given, validation only where there is one; `data_dir` is not looked into."""
        validation = ["validation_file"] if self.options.validation_file else []
        return tuple(self._path(option) for option in ("train_file", *validation, "test_file"))

    def build(self, data_dir: Path, seed: int) -> Mapping[str, Part]:
        """Read every file twice, as a stream: for labels and repetitions, then for the texts."""
        train, *others = self.sources(data_dir)
        scans = {path: _scan(path, tuple(self._texts), self._label, _state(path)) for path in (train, *others)}
        ids = self._label_ids()
        elsewhere = {found for path in others for found in scans[path].digests}
        in_other, again = repeated(scans[train].digests, elsewhere)
        usable = ~(in_other | again)
        if not usable.any():
            options = ("validation_file", "test_file")[-len(others) :]
            holders = [
                f"{option} {path}"
                for option, path in zip(options, others, strict=True)
                if not set(scans[path].digests).isdisjoint(scans[train].digests)
            ]
            raise UserError(
                f"train_file {train}: no example is left to train on: all {len(in_other):,} were dropped, being in "
                f"{' or '.join(holders)} too; give a train_file with examples of its own"
            )
        if len(others) == 2:
            validation = self._part(others[0], ids, len(scans[others[0]].labels))
            if repeats := set(scans[others[0]].digests) & set(scans[others[1]].digests):
                validation.notes.append(f"{len(repeats):,} examples are in test too")
        else:
            labels = np.array([ids[label] for label in scans[train].labels], np.int64)
            chosen = held_out(labels, usable, seed)
            if not chosen.any():
                dropped = int((~usable).sum())
                after = f" ({dropped:,} were dropped: repeated, or in the test_file too)" if dropped else ""
                raise UserError(
                    f"train_file {train}: no label has two examples{after}, so none can be held out for validation; "
                    "give a validation_file, or more examples"
                )
            usable &= ~chosen
            validation = self._part(train, ids, int(chosen.sum()), chosen)
        parts = {
            "train": self._part(train, ids, int(usable.sum()), usable),
            "validation": validation,
            "test": self._part(others[-1], ids, len(scans[others[-1]].labels)),
        }
        parts["train"].notes.extend(repetition_notes(in_other, again, "examples"))
        return parts

    def test_part(self) -> Part:
        """The test part, from the test file alone.

        Raises `UserError` where it is missing and, naming file and line, where it is malformed or has a label not in `info`.
        """
        return Part(self._rows(self._path("test_file"), self._label_ids(), None))

    def encode(self, text: str) -> TokenIds:
        """UTF-8 bytes, or the tokenizer's ids without special tokens, (N,)."""
        tokenizer, as_bytes = self._tokenizer, encode_bytes(text)
        if tokenizer is None:
            return as_bytes
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if not ids:
            raise UserError("the text has nothing that the tokenizer knows")
        return np.array(ids, token_dtype(self.vocab_size))

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        """The text of bytes or of the tokenizer's ids."""
        tokenizer = self._tokenizer
        return decode_bytes(ids) if tokenizer is None else tokenizer.decode(np.asarray(ids).tolist())

    def _path(self, option: str) -> Path:
        given = getattr(self.options, option)
        if given is None:
            raise UserError(f"the task files needs {option}: a .jsonl, .csv, .tsv or .parquet file")
        path = Path(given).expanduser()
        if not path.is_file():
            raise UserError(f"{option} {path} is missing; give the path of a file")
        return path

    @cached_property
    def _tokenizer(self) -> Any:
        return None if self.options.tokenizer is None else _load_tokenizer(self.options.tokenizer)

    def _train_labels(self) -> tuple[str, ...]:
        train = self._path("train_file")
        names = _sorted_labels(_scan(train, tuple(self._texts), self._label, _state(train)).labels)
        if len(names) < 2:
            raise UserError(f"{train}: column '{self._label}' has {len(names)} label; at least 2 are needed")
        return names

    def _label_ids(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.info.label_names)}

    def _part(self, path: Path, ids: Mapping[str, int], expected: int, chosen: NDArray[np.bool_] | None = None) -> Part:
        return Part(self._rows(path, ids, chosen), expected=expected)

    def _rows(self, path: Path, ids: Mapping[str, int], chosen: NDArray[np.bool_] | None) -> Iterator[Row]:
        for i, (where, texts, label) in enumerate(_examples(path, self._texts, self._label)):
            if label not in ids:
                known = f"one of the model's; {did_you_mean(label, ids)}"
                lacking = known if self._of_model is not None else f"in {self.options.train_file}"
                raise UserError(f"{path}, {where}: the label '{label[:40]}' is not {lacking}")
            if chosen is not None and not chosen[i]:
                continue
            try:
                yield [self.encode(text) for text in texts], ids[label]
            except UserError as error:
                raise UserError(f"{path}, {where}: {error}") from error


_INFO = TaskInfo(
    name="files",
    summary="your own labelled documents",
    kind="text",
    vocab_size=VOCAB_SIZE,
    label_names=(),
    max_seq_len=4096,
    sizes=(0, 0, 0),
    source="--train_file and --test_file: .jsonl, .csv, .tsv or .parquet",
    seeded=True,
)


def files_task(options: FilesOptions) -> FilesTask:
    """The task of one's own files, its `info` known.

    Raises `UserError` where a file is missing, the train file is unusable, or the tokenizer is not on this machine.
    """
    task = FilesTask(options)
    task.sources(Path())
    assert task.info.label_names
    return task


def _examples(path: Path, texts: Sequence[str], label: str) -> Iterator[tuple[str, list[str], str]]:
    """Place, texts and label of every example, of which there must be one. Raises `UserError` naming file and line."""
    where = None
    for where, record in read_records(path, [*texts, label]):
        found = [record[column] for column in texts]
        for column, text in zip(texts, found, strict=True):
            if not isinstance(text, str) or not text:
                kind = "is empty" if text in ("", None) else f"is no text but {type(text).__name__}"
                raise UserError(f"{path}, {where}: column '{column}' {kind}")
        yield where, found, _label_name(path, where, label, record[label])
    if where is None:
        raise UserError(f"{path} has no examples")


_INTEGRAL = re.compile(r"[+-]?[0-9]{1,18}\.0+")


def _label_name(path: Path, where: str, column: str, value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case int():
            return str(value)
        # pandas writes a column of whole numbers with a gap in it as 0.0, 1.0.
        case str() if _INTEGRAL.fullmatch(value):
            return str(int(value.partition(".")[0]))
        case str() if value:
            return value
    raise UserError(f"{path}, {where}: column '{column}' must be a string or a whole number, found {value!r:.40}")


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=3)
def _scan(path: Path, texts: tuple[str, ...], label: str, state: tuple[int, int]) -> _Scan:
    """A pass over a file; `state` is what makes a changed file another one."""
    scan = _Scan([], [])
    known: dict[str, str] = {}
    for _, found, name in _examples(path, texts, label):
        scan.labels.append(known.setdefault(name, name))
        scan.digests.append(digest([text.encode(errors="surrogatepass") for text in found]))
    return scan


def _sorted_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Distinct labels: by value where all are whole numbers, else by name."""
    names = set(labels)
    try:
        key: Callable[[str], Any] = {name: (int(name), name) for name in names}.__getitem__
    except ValueError:
        return tuple(sorted(names))
    return tuple(sorted(names, key=key))


def _load_tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for a damaged or missing tokenizer
        raise UserError(
            f"tokenizer '{name}' is neither a folder with a tokenizer nor in the Hugging Face cache of this machine; "
            f"fetch it with `hf download {name}`, or leave --tokenizer out for bytes"
        ) from error


def _tokenizer_checksum(tokenizer: Any) -> str | None:
    if tokenizer is None:
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(content.encode()).hexdigest()


FILES = FilesTask(FilesOptions())
