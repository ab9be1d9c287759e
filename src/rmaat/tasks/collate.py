"""Collate examples into padded batches of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from rmaat.problems import IGNORED

if TYPE_CHECKING:
    from datasets import Dataset

TOKEN_COLUMNS = {"input_ids": "attention_mask", "other_input_ids": "other_attention_mask"}
"""The columns of token ids, each with the name of its mask."""


@dataclass(frozen=True)
class Collator:
    """Function from B examples to one batch, padded to whole segments.

    | key | value |
    |---|---|
    | `input_ids` (B, N) | ids of the stored type, padded with 0 |
    | `attention_mask` (B, N) bool | True for a token |
    | `other_input_ids`, `other_attention_mask` (B, N') | the second sequences of pairs |
    | `labels` (B,) int64, (B,) float32 for numbers, (B, C) float32 for sets | if the examples have them |
    | `labels` (B, N) int64 | those of tokens, padded with -100 |
    | `visits` (B,) int64 | if the examples have them, see `rmaat.training.batches` |

    N is the longest length of the batch, rounded up to a multiple of `multiple`.
    """

    multiple: int
    """Tokens or values of a segment."""
    normalise: tuple[float, float] | None = None
    """Mean and standard deviation of levels.

    `input_values` (B, N) float32 = (id - mean) / std, 0 in the padding, replace `input_ids`."""
    separator: int | None = None
    """The id between the two sequences of a pair, which then become one row."""

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise ValueError(f"multiple must be at least 1, got {self.multiple}")
        if self.normalise is not None and not self.normalise[1] > 0:
            raise ValueError(f"the standard deviation must be positive, got {self.normalise[1]}")

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return one batch."""
        columns = {
            column: [np.asarray(e[column]) for e in examples] for column in TOKEN_COLUMNS if column in examples[0]
        }
        if self.separator is not None and len(columns) == 2:
            # A signed type if bytes do not suffice: torch has little arithmetic for wider unsigned
            # integers.
            between = np.array([self.separator], np.promote_types(np.uint8, np.min_scalar_type(-self.separator)))
            pairs = zip(*columns.values(), strict=True)
            columns = {"input_ids": [np.concatenate((first, between, second)) for first, second in pairs]}
        batch: dict[str, torch.Tensor] = {}
        for column, rows in columns.items():
            batch[column], batch[TOKEN_COLUMNS[column]] = self._pad(rows)
        if self.normalise is not None:
            batch["input_values"] = self._normalised(batch.pop("input_ids"), batch["attention_mask"])
        if "labels" in examples[0]:
            rows = [np.asarray(example["labels"]) for example in examples]
            batch["labels"] = _labels(rows, batch["attention_mask"].shape[1])
        if "visit" in examples[0]:
            batch["visits"] = torch.tensor([example["visit"] for example in examples])
        return batch

    def _pad(self, rows: list[NDArray[Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(1, -(-max(map(len, rows)) // self.multiple)) * self.multiple
        # Keep the stored type: int64 ids of a long sequence would take as much memory as a
        # segment's activations.
        ids = np.zeros((len(rows), width), np.result_type(*{row.dtype for row in rows}))
        mask = np.zeros((len(rows), width), np.bool_)
        for padded, present, row in zip(ids, mask, rows, strict=True):
            padded[: len(row)] = row
            present[: len(row)] = True
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def _normalised(self, levels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert self.normalise is not None
        mean, std = self.normalise
        return levels.float().sub_(mean).div_(std).mul_(mask)


def _labels(rows: list[NDArray[Any]], width: int) -> torch.Tensor:
    """Return the labels of a batch, from those of each example.

    Args:
        rows: of each example, see `rmaat.tasks.reader.TokenReader`.
        width: N, to which labels of tokens are padded.
    """
    # Sets of labels are unsigned, labels of tokens signed.
    if rows[0].ndim == 1 and rows[0].dtype.kind == "i":
        padded = np.full((len(rows), width), IGNORED, np.int64)
        for entries, row in zip(padded, rows, strict=True):
            entries[: len(row)] = row
        return torch.from_numpy(padded)
    labels = np.stack(rows)
    # A loss takes ids of classes as integers, and all else as floating-point numbers.
    classes = labels.ndim == 1 and labels.dtype.kind in "iu"
    return torch.from_numpy(labels.astype(np.int64 if classes else np.float32))


def lengths(dataset: Dataset, column: str = "input_ids") -> NDArray[np.int64]:
    """Return the numbers of tokens (len(dataset),) of a token column.

    They come from Arrow's offsets; no token is read.
    """
    counts: NDArray[np.int64] = pc.list_value_length(dataset.data.column(column)).to_numpy().astype(np.int64)
    return counts[row_numbers(dataset)]


def row_numbers(dataset: Dataset) -> slice | NDArray[np.int64]:
    """Return the rows of a data set within its Arrow table, as an index.

    A selected, shuffled or sorted data set is the whole table and a list of row numbers.
    """
    indices = dataset._indices
    return slice(None) if indices is None else indices.column(0).to_numpy()
