"""Sequences of any length to a Hugging Face data set over one flat Arrow buffer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rmaat.tasks.base import TaskInfo

if TYPE_CHECKING:
    from datasets import Dataset
    from typing_extensions import Buffer

INT32_LIMIT = 2**31 - 1
"""Most tokens that a `list` column can hold; beyond it `large_list` is used."""


def to_dataset(
    info: TaskInfo,
    columns: Mapping[str, Sequence[Buffer]],
    labels: Sequence[int] | NDArray[np.int64],
    max_seq_len: int,
    notes: Sequence[str] = (),
) -> Dataset:
    """One split: token columns cut to `max_seq_len`, and `labels`.

    Each column is a sequence of B sequences of ids: `bytes`, or contiguous arrays of the column's own type (uint8 up to
    256 ids, else int16). Real lengths, the number of sequences cut and `notes` become `dataset.info.description`.
    """
    from datasets import ClassLabel, Dataset, DatasetInfo, Features, LargeList, List, Value

    dtype = np.dtype(np.uint8 if info.vocab_size <= 256 else np.int16)
    table: dict[str, pa.Array] = {}
    features = Features()
    facts = [f"{len(labels):,} examples"]
    for name, sequences in columns.items():
        lengths = np.fromiter((len(memoryview(sequence)) for sequence in sequences), np.int64, len(sequences))
        offsets = np.concatenate(([0], np.minimum(lengths, max_seq_len).cumsum()))
        values = np.frombuffer(b"".join([memoryview(sequence)[:max_seq_len] for sequence in sequences]), dtype)
        assert len(values) == offsets[-1], "a column's arrays must have the column's type"
        large = len(values) > INT32_LIMIT
        list_array = pa.LargeListArray if large else pa.ListArray
        offset_type = np.int64 if large else np.int32
        table[name] = list_array.from_arrays(pa.array(offsets.astype(offset_type)), pa.array(values))
        features[name] = (LargeList if large else List)(Value(dtype.name))
        cut = int((lengths > max_seq_len).sum())
        facts.append(
            f"{name}: mean length {lengths.mean():,.0f}, longest {lengths.max():,}, {cut:,} cut to {max_seq_len:,}"
        )
    table["labels"] = pa.array(np.asarray(labels, np.int64))
    features["labels"] = ClassLabel(names=list(info.label_names))
    description = "; ".join([*facts, *notes])
    return Dataset(pa.table(table), info=DatasetInfo(features=features, description=description))
