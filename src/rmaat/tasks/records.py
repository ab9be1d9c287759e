"""Read records, each with its place for error messages, from JSON Lines, CSV, TSV and Parquet.

The readers of `datasets` and pandas are not used: they guess types ("07" becomes 7, "NA" a missing
value, "2020-01-01" a date), fill missing columns silently, and name no line in their errors.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmaat.errors import UserError, did_you_mean, one_line
from rmaat.tasks.text import LONGEST_LINE, is_empty, read_lines

Record = tuple[str, dict[str, Any]]
"""A record's place ("line 3"), and its values by column.

Values are strings; in JSON Lines and Parquet other types too."""

PARQUET_ROWS = 64
"""Rows of a Parquet file in memory at a time; each may be a long document."""


class MalformedRowError(UserError):
    """A mistake in one row of a file, after which the next row can be read.

    Attributes:
        path: the file.
        where: the place of the row, such as "line 3".
        problem: the mistake, without file and place.
    """

    def __init__(self, path: Path, where: str, problem: object) -> None:
        super().__init__(f"{path}, {where}: {problem}")
        self.path = path
        self.where = where
        self.problem = one_line(str(problem))


BadRow = Callable[[MalformedRowError], None]
"""A function to call with each malformed row. If it returns, the rows after it are read."""


def refuse(error: MalformedRowError) -> None:
    """Raise the error: a malformed row ends the reading."""
    raise error


def refuse_with_advice(error: MalformedRowError) -> None:
    """Raise the error, with the flag that skips malformed rows."""
    raise UserError(f"{error}; --skip_bad_rows skips such rows") from error


@dataclass
class SkippedRows:
    """A `BadRow` that counts the malformed rows, so that the others are read."""

    count: int = 0
    first: MalformedRowError | None = None

    def __call__(self, error: MalformedRowError) -> None:
        """Count a row."""
        self.count += 1
        self.first = self.first or error

    def notes(self) -> list[str]:
        """Return the count and the first row's mistake for `Part.notes`; nothing without a row."""
        if self.first is None:
            return []
        rows = f"{self.count:,} malformed row{'s' if self.count > 1 else ''}"
        return [f"skipped {rows} of {self.first.path.name}; the first: {self.first.where}: {self.first.problem}"]


Reader = Callable[[Path, Sequence[str]], Iterator[Record | MalformedRowError]]


def is_record_file(path: Path) -> bool:
    """Return True if the name ends as those of files that `read_records` reads."""
    kind, packed = _kind(path)
    return kind in READERS and not (packed and kind == ".parquet")


def read_records(path: Path, columns: Sequence[str], bad_row: BadRow = refuse) -> Iterator[Record]:
    """Yield the records of a file with at least these columns; see `read_rows`.

    Args:
        path: the file.
        columns: the columns that each record must have.
        bad_row: called with the mistake of each malformed row. By default it raises the mistake.

    Raises:
        UserError: see `read_rows`.
    """
    for row in read_rows(path, columns):
        if isinstance(row, MalformedRowError):
            bad_row(row)
        else:
            yield row


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[Record | MalformedRowError]:
    """Yield the records of a file with at least these columns, and the mistakes of malformed rows.

    The file is .jsonl, .csv, .tsv (also .gz, .xz) or .parquet. CSV and TSV begin with a line of
    column names. In CSV a field may be quoted; in TSV a quotation mark is an ordinary character.
    Blank lines are skipped.

    A malformed row is not UTF-8, JSON or CSV, or lacks a column.

    Raises:
        UserError: if the file is missing, damaged or no UTF-8 text, or its header lacks a column or has
            it twice; names the file and its line (Parquet: row).
    """
    if not is_record_file(path):
        allowed = ", ".join(READERS)
        raise UserError(
            f"{path}: the name must end in one of {allowed} (all but .parquet also with .gz or .xz after it)"
        )
    if not path.is_file():
        raise UserError(f"{path} is missing; give the path of a file")
    yield from READERS[_kind(path)[0]](path, columns)


def texts_of(path: Path, where: str, record: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Return the texts of a record; raise `MalformedRowError` if one is empty or is no text."""
    for column in columns:
        text = record[column]
        if not isinstance(text, str) or is_empty(text):
            problem = "is empty" if isinstance(text, str | None) else f"is no text but {type(text).__name__}"
            raise MalformedRowError(path, where, f"column '{column}' {problem}")
    return [record[column] for column in columns]


def _kind(path: Path) -> tuple[str, bool]:
    """Return the suffix of a file's name without that of its compression, and if it has one."""
    suffixes = path.suffixes
    packed = len(suffixes) > 1 and suffixes[-1] in (".gz", ".xz")
    return (suffixes[-2] if packed else path.suffix), packed


def _jsonl(path: Path, columns: Sequence[str]) -> Iterator[Record | MalformedRowError]:
    for number, content in read_lines(path):
        try:
            line = _decoded(path, number, content)
            record = _json_object(path, f"line {number}", columns, line) if line.strip() else None
        except MalformedRowError as error:
            yield error
            continue
        if record is not None:
            yield f"line {number}", record


def _json_object(path: Path, where: str, columns: Sequence[str], line: str) -> dict[str, Any]:
    try:
        record = _decode(line)
    except UserError as error:
        raise MalformedRowError(path, where, error) from error
    except (ValueError, RecursionError) as error:
        raise MalformedRowError(path, where, f"not a JSON object ({error})") from error
    if not isinstance(record, dict):
        raise MalformedRowError(path, where, "not a JSON object")
    if problem := _missing_column(columns, record):
        raise MalformedRowError(path, where, problem)
    return record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of these pairs; raises `UserError` if a key appears twice."""
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        raise UserError(f"the key '{next(key for key in keys if keys.count(key) > 1)}' comes twice; keep one")
    return values


_decode = json.JSONDecoder(object_pairs_hook=_object).decode

NumberedRow = tuple[int, list[str] | MalformedRowError]
"""The number of a row's last line, and its fields or its mistake."""


def _csv(path: Path, columns: Sequence[str]) -> Iterator[Record | MalformedRowError]:
    return _with_header(path, columns, _csv_rows(path))


def _csv_rows(path: Path) -> Iterator[NumberedRow]:
    csv.field_size_limit(LONGEST_LINE)  # its default is 131,072 characters
    source, again = read_lines(path), deque[tuple[int, bytes]]()
    # The lines of the row that is being read, and the first of their mistakes.
    lines: list[tuple[int, bytes]] = []
    undecodable: list[MalformedRowError] = []

    def text_lines() -> Iterator[str]:
        while (numbered := again.popleft() if again else next(source, None)) is not None:
            lines.append(numbered)
            try:
                yield f"{_decoded(path, *numbered)}\n"
            except MalformedRowError as error:
                # The line may belong to a quoted field, so it must not be left out.
                undecodable.append(error)
                yield f"{numbered[1].decode(errors='replace')}\n"

    rows = csv.reader(text_lines(), strict=True)
    while True:
        lines.clear()
        undecodable.clear()
        try:
            row = next(rows, None)
        except csv.Error as error:
            # A quotation mark that is not closed takes the following rows into its field. They are
            # read again, as rows of their own.
            first = lines[0][0]
            again.extendleft(reversed(lines[1:]))
            rows = csv.reader(text_lines(), strict=True)
            problem = undecodable[0] if undecodable else None
            yield first, problem or MalformedRowError(path, f"line {first}", f"not CSV ({error})")
            continue
        if row is None:
            return
        yield lines[-1][0], undecodable[0] if undecodable else row


def _tsv(path: Path, columns: Sequence[str]) -> Iterator[Record | MalformedRowError]:
    def rows() -> Iterator[NumberedRow]:
        for number, content in read_lines(path):
            try:
                line = _decoded(path, number, content)
            except MalformedRowError as error:
                yield number, error
            else:
                yield number, line.split("\t") if line else []

    return _with_header(path, columns, rows())


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Record | MalformedRowError]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(path) as file:
            _check_header(path, "its schema", columns, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=list(columns)):
                for record in batch.to_pylist():
                    row += 1
                    yield f"row {row}", record
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, after row {row}: text that is not UTF-8") from error
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}, after row {row}: not a whole Parquet file ({reason})") from error


READERS: dict[str, Reader] = {".jsonl": _jsonl, ".csv": _csv, ".tsv": _tsv, ".parquet": _parquet}
"""The reader of each suffix."""


SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Characters between the columns of files, with their names."""

SEPARATOR_OF = {".csv": ",", ".tsv": "\t"}
"""The separator of each kind of file with a header line."""


def _decoded(path: Path, number: int, line: bytes) -> str:
    if number == 1 and (line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in line):
        kind = "UTF-16" if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "binary or UTF-16"
        raise UserError(f"{path} is not UTF-8 text but {kind}; save it as UTF-8")
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedRowError(path, f"line {number}", f"byte {error.start} is not UTF-8") from error


def _with_header(
    path: Path, columns: Sequence[str], rows: Iterator[NumberedRow]
) -> Iterator[Record | MalformedRowError]:
    """Yield the rows after the first one, which names the columns."""
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path} is empty; its first line must be the names of the columns")
    header = first[1]
    if isinstance(header, MalformedRowError):
        raise UserError(f"{header}; the file must be UTF-8 text with the names of the columns in its first line")
    _check_separator(path, columns, header)
    _check_header(path, "line 1", columns, header)
    for number, row in rows:
        if isinstance(row, MalformedRowError):
            yield row
        elif not row:
            continue
        elif len(row) != len(header):
            problem = f"{len(row)} column{'s' if len(row) > 1 else ''}, but line 1 names {len(header)}"
            yield MalformedRowError(path, f"line {number}", problem)
        else:
            yield f"line {number}", dict(zip(header, row, strict=True))


def _check_separator(path: Path, columns: Sequence[str], header: Sequence[str]) -> None:
    """Raise `UserError` if the names of the columns have another separator between them."""
    kind = _kind(path)[0]
    if len(header) != 1 or header[0] in columns:
        return
    for separator, name in SEPARATORS.items():
        if separator in header[0] and not set(columns).isdisjoint(header[0].split(separator)):
            suffix = next((suffix for suffix, own in SEPARATOR_OF.items() if own == separator), None)
            rename = "" if suffix is None else f", or name it {suffix}"
            raise UserError(
                f"{path}, line 1: {name} separate the columns, but a {kind} file has "
                f"{SEPARATORS[SEPARATOR_OF[kind]]}; save it with those{rename}"
            )


def _check_header(path: Path, where: str, columns: Sequence[str], header: Sequence[str]) -> None:
    if problem := _missing_column(columns, header):
        raise UserError(f"{path}, {where}: {problem}")
    for column in columns:
        if header.count(column) > 1:
            raise UserError(
                f"{path}, {where}: {header.count(column)} columns are named '{column}'; rename or remove one"
            )


def _missing_column(columns: Sequence[str], names: Collection[str]) -> str | None:
    """Return the mistake of the first column that is not among the names; None if all are."""
    for column in columns:
        if column not in names:
            return f"no column '{column}'; {did_you_mean(column, names)}"
    return None
