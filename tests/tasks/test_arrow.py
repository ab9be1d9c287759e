"""Rows to Arrow files and back: types, cuts, facts, many batches, and the reader over them."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from rmaat.errors import UserError
from rmaat.problems import NEXT_TOKEN
from rmaat.tasks import arrow
from rmaat.tasks.base import Part, TaskInfo, token_dtype
from rmaat.tasks.collate import Collator, lengths
from rmaat.tasks.reader import TokenReader
from rmaat.tasks.statistics import PartStatistics, part_statistics, remarks, table_rows


def info_of(vocab_size: int = 256, pair: bool = False) -> TaskInfo:
    return TaskInfo("t", "", "text", vocab_size, ("a", "b"), 4, (1, 1, 1), "", pair=pair)


def write(path: Path, info: TaskInfo, rows: Any, max_seq_len: int = 4, notes: tuple[str, ...] = ()) -> Dataset:
    arrow.write_part(path, info, Part(rows, list(notes)), max_seq_len)
    return arrow.read_part(path)


def test_labels_of_tokens_are_truncated_with_them(tmp_path: Path) -> None:
    info = TaskInfo("t", "", "memory", 300, (), 4, (1, 1, 1), "", problem_type=NEXT_TOKEN)
    rows = [np.arange(length, dtype=np.int16) for length in (2, 6, 1, 4)]
    pairs = [((row,), np.where(row % 2, row + 100, -100).astype(np.int16)) for row in rows]
    dataset = write(tmp_path / "train.arrow", info, pairs, notes=("a note",))
    wanted = [[-100, 101], [-100, 101, -100, 103], [-100], [-100, 101, -100, 103]]
    assert dataset["labels"][:] == wanted
    assert list(map(len, dataset["input_ids"])) == [2, 4, 1, 4]
    found = part_statistics(dataset)
    assert (found.answers, found.classes, found.numbers) == (5, {}, None)
    reader = TokenReader(dataset.select([3, 0, 1]))
    examples = pickle.loads(pickle.dumps(reader)).__getitems__([1, 2, 0])
    assert [example["labels"].tolist() for example in examples] == [wanted[0], wanted[1], wanted[3]]
    assert {example["labels"].dtype for example in examples} == {np.dtype(np.int32)}
    assert reader.labels.tolist() == wanted[3] + wanted[0] + wanted[1]
    assert len(reader) == 3


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(256, np.uint8), (257, np.int16), (32_768, np.int16), (32_769, np.int32)]
)
def test_types_follow_the_vocabulary(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    assert token_dtype(vocab_size) == dtype
    rows = [np.array([0, 255, vocab_size - 1], dtype), np.arange(9, dtype=dtype)]
    pairs = [((rows[0], rows[1]), 1), ((rows[1], rows[0]), 0)]
    dataset = write(tmp_path / "train.arrow", info_of(vocab_size, pair=True), pairs, notes=("a note",))
    assert dataset[0] == {"input_ids": rows[0].tolist(), "other_input_ids": [0, 1, 2, 3], "labels": 1}
    assert dataset.features["input_ids"].feature.dtype == np.dtype(dtype).name
    assert dataset.features["labels"].names == ["a", "b"]
    assert lengths(dataset).tolist() == [3, 4]
    found = part_statistics(dataset)
    assert (found.examples, found.classes, found.notes) == (2, {"a": 1, "b": 1}, ["a note"])
    of = found.lengths["other_input_ids"]
    assert (of.mean, of.p50, of.longest, of.cut, of.max_seq_len) == (6, 6, 9, 1, 4)
    assert found.sentence().endswith("1 cut to 4; a note")
    assert table_rows({"train": found})[1][2:] == ("other_input_ids", "6", "9", "9", "1 to 4")
    assert remarks({"train": found}) == ["train: a: 1, b: 1", "train: a note"]
    assert PartStatistics.from_json(found.to_json()) == found
    for selected in (dataset.select([1]), dataset.shuffle(seed=0)):
        assert part_statistics(selected) == found
    with pytest.raises(ValueError, match=r"only parts that rmaat\.tasks\.load returned"):
        part_statistics(Dataset.from_dict({"input_ids": [[1]]}))


def test_no_rows_is_a_mistake_of_the_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no examples are left for the test part of t"):
        write(tmp_path / "test.arrow", info_of(), [])


def test_rows_are_drawn_as_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "BATCH_TOKENS", 100)
    path = tmp_path / "train.arrow"
    on_disk: list[int] = []

    def rows() -> Iterator[Any]:
        for _ in range(1_000):
            on_disk.append(path.stat().st_size if path.exists() else 0)
            yield (bytes(10),), 0

    dataset = write(path, info_of(), rows(), max_seq_len=10)
    assert on_disk[20] > 0
    assert on_disk[900] > on_disk[500] > on_disk[20]
    assert dataset.data.column("input_ids").num_chunks == 100


ROWS = st.lists(
    st.tuples(st.binary(min_size=1, max_size=12), st.binary(min_size=1, max_size=12)), min_size=1, max_size=12
)


@given(rows=ROWS, data=st.data())
@settings(deadline=None, max_examples=40)
def test_reader_gives_the_rows_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrow, "BATCH_ROWS", data.draw(st.integers(1, 4)))
        path = tmp_path_factory.mktemp("d") / "train.arrow"
        dataset = write(path, info_of(pair=True), [(row, i % 2) for i, row in enumerate(rows)], max_seq_len=8)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=8))
    for part, order in ((dataset, list(range(len(rows)))), (dataset.select(chosen), chosen)):
        reader = TokenReader(part)
        assert len(reader) == len(order)
        assert lengths(part, "other_input_ids").tolist() == [min(8, len(rows[i][1])) for i in order]
        backwards = list(range(len(order)))[::-1]
        for found in (reader.__getitems__(backwards), pickle.loads(pickle.dumps(reader)).__getitems__(backwards)):
            for example, i in zip(found, order[::-1], strict=True):
                assert example["input_ids"].tobytes() == rows[i][0][:8]
                assert example["other_input_ids"].tobytes() == rows[i][1][:8]
                assert example["labels"] == i % 2
    assert reader[0]["input_ids"].base is not None  # a view, not a copy


@pytest.mark.parametrize("workers", [0, 1])
def test_reader_feeds_a_loader(tmp_path: Path, workers: int) -> None:
    dataset = write(tmp_path / "train.arrow", info_of(), [((bytes([i] * 3),), i % 2) for i in range(10)])
    loader = DataLoader(TokenReader(dataset), 4, collate_fn=Collator(2), num_workers=workers)
    batches = list(loader)
    assert [len(batch["labels"]) for batch in batches] == [4, 4, 2]
    assert torch.cat([batch["input_ids"] for batch in batches])[:, 0].tolist() == list(range(10))


def anonymous_bytes() -> int:
    """Memory of this process that is not a mapped file, which the system may drop and read again."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    pytest.skip("the system does not tell mapped files from other memory")


def test_reading_all_examples_in_random_order_takes_the_memory_of_a_batch(tmp_path: Path) -> None:
    row = bytes(range(256)) * 16
    dataset = write(tmp_path / "train.arrow", info_of(), (((row,), 0) for _ in range(16_000)), max_seq_len=4096)
    before, most, tokens = anonymous_bytes(), 0, 0
    for batch in DataLoader(TokenReader(dataset), 32, shuffle=True, collate_fn=Collator(512)):
        tokens += batch["attention_mask"].numpy().sum()
        most = max(most, anonymous_bytes())
    assert tokens == 16_000 * 4096
    assert most - before < 16 << 20, "of 63 MiB of tokens"
