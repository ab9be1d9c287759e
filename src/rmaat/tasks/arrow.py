"""Rows to an Arrow file, a few megabytes at a time, and back as a memory-mapped Hugging Face data set."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from rmaat.errors import UserError
from rmaat.tasks.base import Part, Progress, Row, TaskInfo, TokenIds, token_dtype
from rmaat.tasks.facts import Lengths, PartFacts

if TYPE_CHECKING:
    from datasets import Dataset

BATCH_TOKENS = 2**23
"""Of one record batch, about, over all columns. So offsets stay far below the limit of a `list` column."""

BATCH_ROWS = 2**14

TOLD_ROWS = 2**7
"""Progress is told after so many rows: a batch of long sequences takes too long, a row too little."""


def write_part(
    path: Path, info: TaskInfo, part: Part, max_seq_len: int, progress: Progress = lambda done: None
) -> PartFacts:
    """Write a part's rows to an Arrow stream, each sequence cut to `max_seq_len`, in memory that does not grow with them.

    Columns: the token columns of `info`, lists of `token_dtype`, and `labels`, a `ClassLabel`. `progress` is told of rows.
    Raises `UserError` where there is no row, and what drawing the rows raises.
    """
    from datasets import ClassLabel, Features, List, Value

    dtype = token_dtype(info.vocab_size)
    features = Features({name: List(Value(dtype.name)) for name in info.columns})
    features["labels"] = ClassLabel(names=list(info.label_names))
    schema = features.arrow_schema
    lengths = {name: array("q") for name in info.columns}
    labels = array("q")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in _batches(_told(part.rows, progress)):
            arrays = []
            for i, name in enumerate(info.columns):
                cut = [_buffer(sequences[i])[:max_seq_len] for sequences, _ in batch]
                lengths[name].extend(len(sequences[i]) for sequences, _ in batch)
                offsets = np.cumsum([0, *map(len, cut)], dtype=np.int32)
                values = np.frombuffer(b"".join(cut), dtype)
                assert len(values) == offsets[-1], "a column's arrays must have the column's type"
                arrays.append(pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)))
            of_batch = np.array([label for _, label in batch], np.int64)
            labels.extend(of_batch.tolist())
            writer.write_batch(pa.RecordBatch.from_arrays([*arrays, pa.array(of_batch)], schema=schema))
    if not labels:
        why = "; ".join(part.notes) or "its files have too few"
        raise UserError(f"no examples are left for the {path.stem} part of {info.name}: {why}")
    counts = np.bincount(np.frombuffer(labels, np.int64), minlength=len(info.label_names))
    return PartFacts(
        len(labels),
        dict(zip(info.label_names, counts.tolist(), strict=True)),
        {name: Lengths.of(np.frombuffer(found, np.int64), max_seq_len) for name, found in lengths.items()},
        tuple(part.notes),
    )


def _told(rows: Iterable[Row], progress: Progress) -> Iterator[Row]:
    untold = 0
    for row in rows:
        yield row
        untold += 1
        if untold == TOLD_ROWS:
            progress(untold)
            untold = 0
    progress(untold)


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(map(len, row[0]))
        if size >= BATCH_TOKENS or len(batch) == BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _buffer(ids: bytes | TokenIds) -> bytes | memoryview:
    return ids if isinstance(ids, bytes) else ids.data


def read_part(path: Path, facts: PartFacts) -> Dataset:
    """The part that `write_part` wrote, memory-mapped; its `info.description` is the facts, as JSON."""
    from datasets import Dataset

    dataset = Dataset.from_file(str(path))
    dataset.info.description = facts.to_json()
    return dataset
