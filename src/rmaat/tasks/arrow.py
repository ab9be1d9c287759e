"""Write a part's rows to an Arrow file, a few megabytes at a time, and open it memory-mapped."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from rmaat.errors import UserError
from rmaat.problems import NEXT_TOKEN
from rmaat.tasks.base import Part, Progress, Row, TaskInfo, TokenIds, token_dtype
from rmaat.tasks.labels import LABEL_STORAGE
from rmaat.tasks.statistics import LabelCounts, LengthStatistics, PartStatistics

if TYPE_CHECKING:
    from datasets import Dataset

BATCH_TOKENS = 2**23
"""Approximate tokens of a record batch, far below the limit of a `list` column's offsets."""

BATCH_ROWS = 2**14

PROGRESS_ROWS = 2**7
"""Rows between two calls of `progress`: a batch of long sequences would be too many."""


def write_part(
    path: Path, info: TaskInfo, part: Part, max_seq_len: int, progress: Progress = lambda done: None
) -> None:
    """Write a part's rows to an Arrow stream, and its statistics beside it as `<stem>.json`.

    Each sequence is truncated to `max_seq_len`, or cut into several if the part has a `later_label`. Memory does not
    grow with the number of rows. The columns are the token columns of `info`, lists of
    `token_dtype`, and `labels`, see `rmaat.tasks.labels`. `progress` is called with numbers of rows.

    Raises:
        UserError: if there is no row; also whatever drawing the rows raises.
    """
    from datasets import Features, List, Value

    dtype, column = token_dtype(info.vocab_size), LABEL_STORAGE[info.problem_type]
    features = Features({name: List(Value(dtype.name)) for name in info.columns})
    features["labels"] = column.feature(info.label_names)
    schema = features.arrow_schema
    # Arrays of machine integers: a Python list of millions of lengths would take many times the
    # memory.
    lengths = {name: array("q") for name in info.columns}
    labels = LabelCounts(info)
    rows = _report_rows(part.rows, progress)
    if part.later_label is not None:
        assert info.problem_type != NEXT_TOKEN, "the labels of tokens would have to be cut too"
        rows = _cut(rows, max_seq_len, part.later_label)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in _batches(rows):
            arrays = []
            for i, name in enumerate(info.columns):
                cut = [_buffer(sequences[i])[:max_seq_len] for sequences, _ in batch]
                lengths[name].extend(len(sequences[i]) for sequences, _ in batch)
                offsets = np.cumsum([0, *map(len, cut)], dtype=np.int32)
                values = np.frombuffer(b"".join(cut), dtype)
                assert len(values) == offsets[-1], "a column's arrays must have the column's type"
                arrays.append(pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)))
            batch_labels = [label for _, label in batch]
            if info.problem_type == NEXT_TOKEN:
                # Each label belongs to a token, so both are truncated.
                batch_labels = [np.asarray(label)[:max_seq_len] for label in batch_labels]
            labels.add(batch_labels)
            writer.write_batch(pa.RecordBatch.from_arrays([*arrays, column.array(batch_labels)], schema=schema))
    if not labels.examples:
        reason = "; ".join(part.notes) or "its files have too few"
        raise UserError(f"no examples are left for the {path.stem} part of {info.name}: {reason}")
    statistics = PartStatistics(
        labels.examples,
        labels.classes(),
        {name: LengthStatistics.of(np.frombuffer(column, np.int64), max_seq_len) for name, column in lengths.items()},
        tuple(part.notes),
        labels.numbers(),
        labels.answers(),
    )
    path.with_suffix(".json").write_text(statistics.to_json())


def read_part(path: Path) -> Dataset:
    """Open the part that `write_part` wrote, memory-mapped."""
    from datasets import Dataset

    return Dataset.from_file(str(path))


def _report_rows(rows: Iterable[Row], progress: Progress) -> Iterator[Row]:
    unreported = 0
    for row in rows:
        yield row
        unreported += 1
        if unreported == PROGRESS_ROWS:
            progress(unreported)
            unreported = 0
    progress(unreported)


def _cut(rows: Iterator[Row], length: int, later_label: int) -> Iterator[Row]:
    for sequences, label in rows:
        for start in range(0, max(map(len, sequences)), length):
            yield [sequence[start : start + length] for sequence in sequences], later_label if start else label


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    tokens = 0
    for row in rows:
        batch.append(row)
        tokens += sum(map(len, row[0]))
        if tokens >= BATCH_TOKENS or len(batch) == BATCH_ROWS:
            yield batch
            batch, tokens = [], 0
    if batch:
        yield batch


def _buffer(ids: bytes | TokenIds) -> bytes | memoryview:
    return ids if isinstance(ids, bytes) else ids.data
