"""Padding to whole segments, and lengths from Arrow's offsets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, LargeList, List, Value, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaat.tasks.collate import Collator, lengths

ROWS = st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=20), min_size=1, max_size=6)


@given(ROWS, st.integers(1, 9), st.booleans())
@settings(deadline=None)
def test_collator_pads_to_the_least_whole_number_of_segments(
    rows: list[list[int]], multiple: int, as_arrays: bool
) -> None:
    examples = [{"input_ids": np.array(row, np.uint8) if as_arrays else row, "labels": i} for i, row in enumerate(rows)]
    batch = Collator(multiple)(examples)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert batch["input_ids"].dtype == (torch.uint8 if as_arrays else torch.int64)
    assert (batch["attention_mask"].dtype, batch["labels"].dtype) == (torch.bool, torch.int64)
    width = batch["input_ids"].shape[1]
    longest = max(map(len, rows))
    assert width % multiple == 0
    assert longest <= width < longest + multiple
    for row, ids, mask in zip(rows, batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True):
        assert ids == row + [0] * (width - len(row))
        assert mask == [1] * len(row) + [0] * (width - len(row))
    assert batch["labels"].tolist() == list(range(len(rows)))


def test_collator_on_pairs_and_without_labels() -> None:
    batch = Collator(4)([{"input_ids": [1, 2], "other_input_ids": [3] * 5}, {"input_ids": [4], "other_input_ids": [5]}])
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "input_ids": (2, 4),
        "attention_mask": (2, 4),
        "other_input_ids": (2, 8),
        "other_attention_mask": (2, 8),
    }
    assert batch["other_attention_mask"].sum(1).tolist() == [5, 1]


def test_collator_refuses_no_segment() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Collator(0)


def dataset_of(rows: list[list[int]], large: bool) -> Dataset:
    kind = LargeList if large else List
    return Dataset.from_dict({"input_ids": rows}, features=Features({"input_ids": kind(Value("uint8"))}))


@given(ROWS, ROWS, st.booleans(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_lengths_are_those_of_the_rows(first: list[list[int]], second: list[list[int]], large: bool, random) -> None:
    dataset = concatenate_datasets([dataset_of(first, large), dataset_of(second, large)])
    assert dataset.data.column("input_ids").num_chunks == 2
    rows = first + second
    assert lengths(dataset).tolist() == list(map(len, rows))
    order = random.sample(range(len(rows)), random.randint(1, len(rows)))
    selected = dataset.select(order)
    assert lengths(selected).tolist() == [len(rows[i]) for i in order]
    assert lengths(dataset.select(range(1, len(rows)))).tolist() == list(map(len, rows))[1:]


def test_lengths_of_a_sliced_table_on_disk(tmp_path: Path) -> None:
    rows = [[1] * n for n in (3, 1, 4, 1, 5)]
    dataset_of(rows, large=False).save_to_disk(str(tmp_path / "d"))
    loaded = Dataset.load_from_disk(str(tmp_path / "d"))
    assert lengths(loaded.shard(2, 1, contiguous=True)).tolist() == [1, 5]
    assert lengths(loaded.shuffle(seed=1)).sum() == 14


LEVELS = [
    {"input_ids": np.array([0, 255], np.uint8), "labels": 0},
    {"input_ids": np.array([100], np.uint8), "labels": 1},
]


def test_real_values_in_place_of_ids() -> None:
    batch = Collator(3, normalise=(100.0, 50.0))(LEVELS)
    assert set(batch) == {"input_values", "attention_mask", "labels"}
    assert batch["input_values"].dtype == torch.float32
    torch.testing.assert_close(batch["input_values"], torch.tensor([[-2.0, 3.1, 0.0], [0.0, 0.0, 0.0]]))
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 0, 0]]
    with pytest.raises(ValueError, match="must be positive"):
        Collator(3, normalise=(0.0, 0.0))


@given(ROWS, st.integers(1, 9), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_a_pair_in_one_row(rows: list[list[int]], multiple: int, random) -> None:
    others = [random.choice(rows) for _ in rows]
    examples = [
        {"input_ids": np.array(a, np.uint8), "other_input_ids": np.array(b, np.uint8), "labels": 0}
        for a, b in zip(rows, others, strict=True)
    ]
    batch = Collator(multiple, separator=256)(examples)
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert batch["input_ids"].dtype == torch.int16, "the smallest that the model reads and the separator fits"
    for a, b, ids, mask in zip(
        rows, others, batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True
    ):
        joined = [*a, 256, *b]
        assert ids == joined + [0] * (len(ids) - len(joined))
        assert sum(mask) == len(joined)
        assert mask == sorted(mask, reverse=True)


def test_a_separator_leaves_single_sequences_alone() -> None:
    assert Collator(2, separator=256)(LEVELS)["input_ids"].tolist() == [[0, 255], [100, 0]]
