"""The order of the training examples, and their random changes."""

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from rmaat.tasks.reader import TokenReader
from rmaat.training.batches import GroupedByLength, TrainingExamples


def test_batches_hold_like_lengths_and_each_example_once_in_each_pass():
    epoch = 0
    lengths = np.random.default_rng(0).integers(1, 2000, 1003)
    sampler = GroupedByLength(lengths, 8, 0, lambda: epoch)
    order = np.array(list(sampler))
    assert len(order) == len(sampler) == 1000
    assert len(set(order.tolist())) == 1000
    spread = np.ptp(lengths[order].reshape(-1, 8), axis=1).mean()
    shuffled = np.ptp(np.random.default_rng(1).permutation(lengths)[:1000].reshape(-1, 8), axis=1).mean()
    assert spread < shuffled / 20
    assert np.array_equal(order, list(sampler))
    first_lengths = lengths[order].reshape(-1, 8).mean(1)
    assert abs(np.corrcoef(first_lengths, np.arange(125))[0, 1]) < 0.3
    epoch = 2
    passes, later_order = np.divmod(list(sampler), 1003)
    assert set(passes.tolist()) == {2}
    assert len(set(later_order.tolist())) == 1000
    assert not np.array_equal(order, later_order)


def last_token_drawn(rng: np.random.Generator, ids: np.ndarray) -> np.ndarray:
    """An augmentation."""
    return np.append(ids[:-1], rng.integers(1000)).astype(ids.dtype)


@pytest.fixture
def reader() -> TokenReader:
    """Seven examples of two tokens, of which the first is the index."""
    columns = {"input_ids": [[i, 0] for i in range(7)], "labels": list(range(7))}
    return TokenReader(Dataset.from_dict(columns))


def drawn(examples: TrainingExamples, visits: Sequence[int]) -> list[tuple[int, int, int]]:
    """The tokens and the label of each visit."""
    rows: list[dict[str, Any]] = examples.__getitems__(visits)
    return [(*row["input_ids"].tolist(), row["labels"]) for row in rows]


def test_an_example_changes_with_its_pass_and_the_seed_and_with_nothing_else(reader):
    examples = TrainingExamples(reader, last_token_drawn, seed=3)
    visits = [pass_ * 7 + i for pass_ in range(30) for i in range(7)]
    rows = drawn(examples, visits)
    assert [(i, label) for i, _, label in rows] == [(v % 7, v % 7) for v in visits]
    assert len({draw for _, draw, _ in rows}) > 150
    assert drawn(pickle.loads(pickle.dumps(examples)), visits[::-1]) == rows[::-1]
    assert [drawn(examples, [visit])[0] for visit in visits[:20]] == rows[:20]
    assert drawn(TrainingExamples(reader, last_token_drawn, seed=4), visits) != rows
    assert drawn(TrainingExamples(reader, None, seed=3), [2, 9, 16]) == [(2, 0, 2)] * 3
