"""Read records, each with its place for error messages, from JSON Lines, CSV, TSV and Parquet.

The readers of `datasets` and pandas are not used: they guess types ("07" becomes 7, "NA" a missing
value, "2020-01-01" a date), fill missing columns silently, and name no line in their errors.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from rmaat.errors import UserError, did_you_mean
from rmaat.tasks.text import LONGEST_LINE, read_lines

Record = tuple[str, dict[str, Any]]
"""A record's place ("line 3"), and its values by column.

Values are strings; in JSON Lines and Parquet other types too."""

PARQUET_ROWS = 64
"""Rows of a Parquet file in memory at a time; each may be a long document."""

Reader = Callable[[Path, Sequence[str]], Iterator[Record]]


def read_records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    """Yield the records of a file with at least these columns.

    The file is .jsonl, .csv, .tsv (also .gz, .xz) or .parquet. CSV and TSV begin with a line of
    column names. In CSV a field may be quoted; in TSV a quotation mark is an ordinary character.
    Blank lines are skipped: in JSON Lines anywhere, in CSV and TSV at the end.

    Raises:
        UserError: if the file is missing, damaged or not UTF-8, or if a column is missing or
            appears twice; names the file and its line (Parquet: row).
    """
    suffixes = path.suffixes
    kind = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in (".gz", ".xz") else path.suffix
    packed = kind != path.suffix
    if kind not in READERS or (packed and kind == ".parquet"):
        allowed = ", ".join(READERS)
        raise UserError(
            f"{path}: the name must end in one of {allowed} (all but .parquet also with .gz or .xz after it)"
        )
    if not path.is_file():
        raise UserError(f"{path} is missing; give the path of a file")
    yield from READERS[kind](path, columns)


def _jsonl(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    for number, line in _text_lines(path):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            record = _decode(line)
        except UserError as error:
            raise UserError(f"{path}, {where}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, {where}: not a JSON object ({error})") from error
        if not isinstance(record, dict):
            raise UserError(f"{path}, {where}: not a JSON object")
        _check_columns(path, where, columns, record)
        yield where, record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of these pairs; raises `UserError` if a key appears twice."""
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        raise UserError(f"the key '{next(key for key in keys if keys.count(key) > 1)}' comes twice; keep one")
    return values


_decode = json.JSONDecoder(object_pairs_hook=_object).decode


def _csv(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    csv.field_size_limit(LONGEST_LINE)  # its default is 131,072 characters
    rows = csv.reader((f"{line}\n" for _, line in _text_lines(path)), strict=True)

    def numbered() -> Iterator[tuple[int, list[str]]]:
        try:
            for row in rows:
                yield rows.line_num, row
        except csv.Error as error:
            raise UserError(f"{path}, line {rows.line_num}: not CSV ({error})") from error

    return _with_header(path, columns, numbered())


def _tsv(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    rows = ((number, line.split("\t") if line else []) for number, line in _text_lines(path))
    return _with_header(path, columns, rows)


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Record]:
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


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in read_lines(path):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {number}: byte {error.start} is not UTF-8") from error


def _with_header(path: Path, columns: Sequence[str], rows: Iterator[tuple[int, list[str]]]) -> Iterator[Record]:
    """Yield the rows after the first one, which names the columns."""
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path} is empty; its first line must be the names of the columns")
    header = first[1]
    _check_header(path, "line 1", columns, header)
    blank = None
    for number, row in rows:
        if not row:
            blank = blank or number
            continue
        if blank is not None:
            raise UserError(f"{path}, line {blank}: blank, with lines after it; remove it")
        if len(row) != len(header):
            raise UserError(f"{path}, line {number}: {len(row)} columns, but line 1 names {len(header)}")
        yield f"line {number}", dict(zip(header, row, strict=True))


def _check_header(path: Path, where: str, columns: Sequence[str], header: Sequence[str]) -> None:
    _check_columns(path, where, columns, header)
    for column in columns:
        if header.count(column) > 1:
            raise UserError(
                f"{path}, {where}: {header.count(column)} columns are named '{column}'; rename or remove one"
            )


def _check_columns(path: Path, where: str, columns: Sequence[str], names: Collection[str]) -> None:
    for column in columns:
        if column not in names:
            raise UserError(f"{path}, {where}: no column '{column}'; {did_you_mean(column, names)}")
