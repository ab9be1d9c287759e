"""Read examples of a memory-mapped data set for torch's DataLoader, without copies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from numpy.typing import NDArray

from rmaat.tasks.collate import TOKEN_COLUMNS, row_numbers


class _Column:
    """One list column: each row's chunk, and its start and stop in the chunk's flat values."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        chunks = dataset.data.column(name).chunks
        self.values = [chunk.values.to_numpy() for chunk in chunks]
        offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        chunk_of_row = np.repeat(np.arange(len(chunks)), [len(chunk) for chunk in chunks])
        starts = np.concatenate([of_chunk[:-1] for of_chunk in offsets] or [[]])
        stops = np.concatenate([of_chunk[1:] for of_chunk in offsets] or [[]])
        self.places = np.stack([chunk_of_row, starts, stops], axis=1, dtype=np.int64)[row_numbers(dataset)]

    def take(self, indices: Sequence[int]) -> list[NDArray[Any]]:
        values = self.values
        return [values[chunk][start:stop] for chunk, start, stop in self.places[indices].tolist()]


class TokenReader(torch.utils.data.Dataset[dict[str, Any]]):
    """Reader of a part that `rmaat.tasks.load` returned, or of a selection of it.

    For a DataLoader with `rmaat.tasks.collate.Collator`. An example is a dict of token columns,
    read-only arrays (N,) of the stored type that lie in the mapped file, and `labels`: an int, a float
    or an array: (C,) uint8 for sets of labels, (N,) int32 for the ids of tokens.
    Worker processes map the file again and do not copy it.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._columns = {name: _Column(dataset, name) for name in TOKEN_COLUMNS if name in dataset.features}
        # A label for each token takes as much memory as the tokens, so it stays in the file.
        of_tokens = pa.types.is_list(dataset.data.column("labels").type)
        self._of_tokens = _Column(dataset, "labels") if of_tokens else None

    @cached_property
    def labels(self) -> NDArray[Any]:
        """Labels: (len(self),) int64 or float64, or (len(self), C) uint8 for sets of labels.

        Labels of tokens are those of all examples one after another, int32; see `rmaat.tasks.labels`.
        """
        if self._of_tokens is None:
            return _labels(self._dataset)
        return np.concatenate(self._of_tokens.take(range(len(self))))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def row(self, index: int) -> int:
        """Return the row of an example in the whole part, counted from 0."""
        return int(np.arange(len(self._dataset.data))[row_numbers(self._dataset)][index])

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return the examples of a batch; torch's loader calls this once for each batch."""
        columns = [column.take(indices) for column in self._columns.values()]
        names = (*self._columns, "labels")
        rows = zip(*columns, self._labels_of(indices), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _labels_of(self, indices: Sequence[int]) -> Iterable[Any]:
        if self._of_tokens is not None:
            return self._of_tokens.take(indices)
        labels = self.labels[indices]
        return labels.tolist() if labels.ndim == 1 else labels

    def __getstate__(self) -> Any:
        return self._dataset

    def __setstate__(self, dataset: Any) -> None:
        self.__init__(dataset)  # type: ignore[misc]


def _labels(dataset: Dataset) -> NDArray[Any]:
    """Return all labels of a part; a stored set of labels is a row of ones and zeros."""
    column = dataset.data.column("labels")
    if pa.types.is_fixed_size_list(column.type):
        chunks = [chunk.flatten().to_numpy() for chunk in column.chunks]
        return np.concatenate(chunks).reshape(-1, column.type.list_size)[row_numbers(dataset)]
    labels: NDArray[Any] = column.to_numpy()[row_numbers(dataset)]
    return labels


class BeginningsReader(TokenReader):
    """Reader of the beginning of each example, which has one label.

    Args:
        dataset: a part, see `TokenReader`.
        lengths: tokens to read of each example by token column, (len(dataset),) each.
    """

    def __init__(self, dataset: Dataset, lengths: Mapping[str, NDArray[np.int64]]) -> None:
        super().__init__(dataset)
        self._lengths = lengths

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return the examples of a batch."""
        examples = super().__getitems__(indices)
        for example, index in zip(examples, indices, strict=True):
            example.update({name: example[name][: lengths[index]] for name, lengths in self._lengths.items()})
        return examples

    def __getstate__(self) -> Any:
        return self._dataset, self._lengths

    def __setstate__(self, state: Any) -> None:
        self.__init__(*state)  # type: ignore[misc]
