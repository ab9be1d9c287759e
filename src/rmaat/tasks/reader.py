"""Rows of a memory-mapped data set for torch's DataLoader, as views into the mapped file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from rmaat.tasks.collate import TOKEN_COLUMNS


class _Column:
    """One list column: where each row begins and ends in which chunk's flat values."""

    def __init__(self, dataset: Dataset, name: str) -> None:
        chunks = dataset.data.column(name).chunks
        self.values = [chunk.values.to_numpy() for chunk in chunks]
        offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        rows = _rows(dataset)
        chunk_of = np.repeat(np.arange(len(chunks)), [len(chunk) for chunk in chunks])
        starts = np.concatenate([of_chunk[:-1] for of_chunk in offsets] or [[]])
        stops = np.concatenate([of_chunk[1:] for of_chunk in offsets] or [[]])
        self.places = np.stack([chunk_of, starts, stops], axis=1, dtype=np.int64)[rows]

    def take(self, indices: Sequence[int]) -> list[NDArray[Any]]:
        values = self.values
        return [values[chunk][start:stop] for chunk, start, stop in self.places[indices].tolist()]


def _rows(dataset: Dataset) -> Any:
    # A selected, shuffled or sorted data set is a list of row numbers into the whole table.
    indices = dataset._indices
    return slice(None) if indices is None else indices.column(0).to_numpy()


class TokenReader(torch.utils.data.Dataset[dict[str, Any]]):
    """A part that `rmaat.tasks.load` gave, or a selection of it, for a DataLoader with `rmaat.tasks.collate.Collator`.

    An example is a dict of token columns, read-only arrays (N,) of the stored type that lie in the mapped file, and the
    `labels`, an int. Processes that load data map the file anew instead of copying it.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._columns = {name: _Column(dataset, name) for name in TOKEN_COLUMNS if name in dataset.features}
        self.labels: NDArray[np.int64] = dataset.data.column("labels").to_numpy()[_rows(dataset)]
        """Labels (len(self),)."""

    def lengths(self, column: str = "input_ids") -> NDArray[np.int64]:
        """Numbers of tokens (len(self),) of a token column."""
        places = self._columns[column].places
        return places[:, 2] - places[:, 1]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples of a batch, at once."""
        columns = [column.take(indices) for column in self._columns.values()]
        names = (*self._columns, "labels")
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, self.labels[indices].tolist(), strict=True)]

    def __getstate__(self) -> Dataset:
        return self._dataset

    def __setstate__(self, dataset: Dataset) -> None:
        self.__init__(dataset)  # type: ignore[misc]
