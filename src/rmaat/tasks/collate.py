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

    Called with B examples, it returns `input_ids` (B, N) int64 padded with 0, `attention_mask` (B, N) int64 with 1 for
    a token, and `labels` (B,) int64 where the examples have them; pairs give `other_input_ids` and
    `other_attention_mask` (B, N') too. N is the batch's longest length rounded up to a multiple of `multiple`, the
    segment length.
    """

    multiple: int

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise ValueError(f"multiple must be at least 1, got {self.multiple}")

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """One batch."""
        batch: dict[str, torch.Tensor] = {}
        for column, mask_name in TOKEN_COLUMNS.items():
            if column in examples[0]:
                batch[column], batch[mask_name] = self._pad([np.asarray(example[column]) for example in examples])
        if "labels" in examples[0]:
            batch["labels"] = torch.tensor([int(example["labels"]) for example in examples])
        return batch

    def _pad(self, rows: list[NDArray[Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        row_lengths = np.array([len(row) for row in rows])
        segments = max(1, -(-int(row_lengths.max()) // self.multiple))
        is_token = np.arange(segments * self.multiple) < row_lengths[:, None]
        ids = np.zeros(is_token.shape, np.int64)
        ids[is_token] = np.concatenate(rows)
        return torch.from_numpy(ids), torch.from_numpy(is_token.astype(np.int64))


def lengths(dataset: Dataset, column: str = "input_ids") -> NDArray[np.int64]:
    """Numbers of tokens (len(dataset),) of a token column, taken from Arrow's offsets without reading a token."""
    chunked = pc.list_value_length(dataset.data.column(column))
    counts: NDArray[np.int64] = chunked.to_numpy().astype(np.int64)
    # A selected, shuffled or sorted data set is a list of row numbers into the whole table.
    rows = dataset._indices
    return counts if rows is None else counts[rows.column(0).to_numpy()]
