"""Examples to padded batches of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from datasets import Dataset

TOKEN_COLUMNS = {"input_ids": "attention_mask", "other_input_ids": "other_attention_mask"}
"""Columns of token ids, and the name of the mask that goes with each."""


@dataclass(frozen=True)
class Collator:
    """Pads a batch to whole segments.

    Called with B examples, it returns `input_ids` (B, N), of the type they are stored in, padded with 0, `attention_mask`
    (B, N) bool, True for a token, and `labels` (B,) int64 where the examples have them; pairs give `other_input_ids` and
    `other_attention_mask` (B, N') too. N is the batch's longest length rounded up to a multiple of `multiple`, the
    tokens or values of a segment.

    With `separator`, an id, the two sequences of a pair become one row, a, separator, b, and there are no other_* keys.
    With `normalise`, (mean, std) of levels, ids become `input_values` (B, N) float32 = (id - mean) / std, 0 where the
    mask is, in place of `input_ids`.
    """

    multiple: int
    normalise: tuple[float, float] | None = None
    separator: int | None = None

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise ValueError(f"multiple must be at least 1, got {self.multiple}")
        if self.normalise is not None and not self.normalise[1] > 0:
            raise ValueError(f"the standard deviation must be positive, got {self.normalise[1]}")

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """One batch."""
        columns = {
            column: [np.asarray(e[column]) for e in examples] for column in TOKEN_COLUMNS if column in examples[0]
        }
        if self.separator is not None and len(columns) == 2:
            # Signed where bytes do not suffice: torch has little arithmetic for wider unsigned integers.
            between = np.array([self.separator], np.promote_types(np.uint8, np.min_scalar_type(-self.separator)))
            pairs = zip(*columns.values(), strict=True)
            columns = {"input_ids": [np.concatenate((first, between, second)) for first, second in pairs]}
        batch: dict[str, torch.Tensor] = {}
        for column, rows in columns.items():
            batch[column], batch[TOKEN_COLUMNS[column]] = self._pad(rows)
        if self.normalise is not None:
            batch["input_values"] = self._normalised(batch.pop("input_ids"), batch["attention_mask"])
        if "labels" in examples[0]:
            labels = np.fromiter((example["labels"] for example in examples), np.int64, len(examples))
            batch["labels"] = torch.from_numpy(labels)
        return batch

    def _pad(self, rows: list[NDArray[Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(1, -(-max(map(len, rows)) // self.multiple)) * self.multiple
        # A long sequence as int64, with a mask of that size, would take as much as a segment's activations.
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


def lengths(dataset: Dataset, column: str = "input_ids") -> NDArray[np.int64]:
    """Numbers of tokens (len(dataset),) of a token column, taken from Arrow's offsets without reading a token."""
    chunked = pc.list_value_length(dataset.data.column(column))
    counts: NDArray[np.int64] = chunked.to_numpy().astype(np.int64)
    # A selected, shuffled or sorted data set is a list of row numbers into the whole table.
    rows = dataset._indices
    return counts if rows is None else counts[rows.column(0).to_numpy()]
