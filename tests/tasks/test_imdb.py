"""IMDb: both layouts, held-out validation, repetitions, damage, and the real files."""

import itertools
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmaat.errors import UserError
from rmaat.tasks import load
from rmaat.tasks.imdb import IMDB
from rmaat.tasks.statistics import part_statistics


def records(part: str, count: int = 60) -> list[dict[str, Any]]:
    return [
        {"text": f"{part} review {i} é " + "long " * (250 if i % 3 == 0 else 1), "label": i % 2, "id": i // 2}
        for i in range(count)
    ]


def put_compact(data_dir: Path, train: list[Any] | bytes, test: list[Any]) -> Path:
    data_dir.mkdir(parents=True, exist_ok=True)
    for part, content in (("train", train), ("test", test)):
        raw = content if isinstance(content, bytes) else b"".join(json.dumps(r).encode() + b"\n" for r in content)
        (data_dir / f"imdb_{part}.jsonl.xz").write_bytes(lzma.compress(raw))
    return data_dir


def put_official(data_dir: Path, train: list[dict[str, Any]], test: list[dict[str, Any]]) -> Path:
    for part, content in (("train", train), ("test", test)):
        for record in content:
            folder = data_dir / "aclImdb" / part / ("neg", "pos")[record["label"]]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{record['id']}_{9 if record['label'] else 2}.txt").write_text(record["text"])
    return data_dir


def texts(part: Any) -> list[str]:
    return [bytes(ids).decode() for ids in part["input_ids"]]


def contents(part: Any) -> set[bytes]:
    """As `texts`, a set, straight from the table: tens of thousands of rows in a moment."""
    column = part.data.column("input_ids").combine_chunks()
    flat, offsets = column.values.to_numpy().tobytes(), column.offsets.to_pylist()
    return {flat[start:stop] for start, stop in itertools.pairwise(offsets)}


def test_both_layouts_give_the_same(tmp_path: Path) -> None:
    compact = load("imdb_lra", put_compact(tmp_path / "compact", records("train"), records("test")))
    official = load("imdb_lra", put_official(tmp_path / "official", records("train"), records("test")))
    for split in ("train", "validation", "test"):
        assert compact[split].to_dict() == official[split].to_dict()
    assert texts(compact["test"]) == [record["text"] for record in records("test")]
    assert compact["test"]["labels"][:4] == [0, 1, 0, 1]


def test_validation_is_held_out_of_train_by_the_seed(tmp_path: Path) -> None:
    data_dir = put_compact(tmp_path, records("train"), records("test"))
    parts = [load("imdb_lra", data_dir, seed=seed) for seed in (0, 1)]
    for dataset in parts:
        assert sorted(dataset["validation"]["labels"]) == [0, 0, 0, 1, 1, 1]
        both = texts(dataset["train"]) + texts(dataset["validation"])
        assert sorted(both) == sorted(record["text"] for record in records("train"))
    assert texts(parts[0]["validation"]) != texts(parts[1]["validation"])
    assert texts(parts[0]["test"]) == texts(parts[1]["test"])


def test_repetitions_are_dropped_from_train_only(tmp_path: Path) -> None:
    train, test = records("train"), records("test")
    for i in (1, 2, 3):
        train[i]["text"] = test[i]["text"]
    for i in (10, 11):
        train[i]["text"] = train[20]["text"]
    test[5]["text"] = test[7]["text"]
    dataset = load("imdb_lra", put_compact(tmp_path, train, test))
    both = texts(dataset["train"]) + texts(dataset["validation"])
    assert len(both) == len(set(both)) == 60 - 3 - 2
    assert not set(both) & set(texts(dataset["test"]))
    assert len(dataset["test"]) == 60
    assert (
        "dropped 3 reviews that are in another part too and 2 that repeat" in part_statistics(dataset["train"]).notes[0]
    )


def test_short_and_long_variants(tmp_path: Path) -> None:
    data_dir = put_compact(tmp_path, records("train"), records("test"))
    assert max(map(len, load("imdb", data_dir)["test"]["input_ids"])) == 1024
    long = load("imdb_long", data_dir)
    assert len(long["test"]) == 20
    assert min(map(len, long["train"]["input_ids"])) > 1024


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"{", ["not a JSON object"]),
        (b"[1]", ["not a JSON object"]),
        (b'{"text": 3, "label": 0}', ["'text' must be a string, found 3"]),
        (b'{"text": "a", "label": 2}', ["0 (negative) or 1 (positive), found 2"]),
        (b'{"text": "a", "label": true}', ["0 (negative) or 1 (positive), found True"]),
        (b'{"text": "a"}', ["no column 'label'"]),
        (b'{"text": "", "label": 0}', ["empty"]),
        (b'{"text": "\\ud800", "label": 0}', ["surrogate"]),
        (b'{"text": "\xff", "label": 0}', ["byte 10 is not UTF-8"]),
    ],
)
def test_bad_lines_are_told(tmp_path: Path, bad: bytes, words: list[str]) -> None:
    put_compact(tmp_path, b'{"text": "good", "label": 1}\n' + bad + b"\n", records("test"))
    with pytest.raises(UserError) as caught:
        load("imdb", tmp_path)
    for word in ["imdb_train.jsonl.xz, line 2", *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cut_off_file_is_told(tmp_path: Path) -> None:
    put_compact(tmp_path, records("train"), records("test"))
    path = tmp_path / "imdb_test.jsonl.xz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"imdb_test\.jsonl\.xz, after line \d+: not a whole \.xz file"):
        load("imdb", tmp_path)


def test_bad_official_files_are_told(tmp_path: Path) -> None:
    put_official(tmp_path, records("train"), records("test"))
    path = tmp_path / "aclImdb" / "train" / "pos" / "3_9.txt"
    for content, word in ((b"", "empty"), (b"a\xff", "byte 1 is not UTF-8")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"3_9\.txt: .*{word}"):
            load("imdb", tmp_path)
    path.rename(path.with_name("3.md"))
    with pytest.raises(UserError, match=r"3\.md: not a review"):
        load("imdb", tmp_path)
    path.with_name("3.md").unlink()
    path.symlink_to(path.name)
    with pytest.raises(UserError, match=r"3_9\.txt: not a review"):
        load("imdb", tmp_path)


def test_missing_and_too_few(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"imdb_train\.jsonl\.xz is missing .*aclImdb"):
        load("imdb", tmp_path)
    put_compact(tmp_path, records("train", 8), records("test"))
    with pytest.raises(UserError, match="no examples are left for the validation part of imdb"):
        load("imdb", tmp_path)


def test_encode_and_decode() -> None:
    assert IMDB.encode("né").tolist() == [110, 195, 169]
    assert IMDB.decode(np.array([110, 195, 169], np.uint8)) == "né"
    assert IMDB.decode([110, 195]) == "n\ufffd"
    with pytest.raises(UserError, match="empty"):
        IMDB.encode("")


def test_the_real_files(shared_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RMAAT_CACHE", str(tmp_path))
    dataset = load("imdb_lra", shared_data)
    assert tuple(map(len, dataset.values())) == IMDB.info.sizes == (25_000 - 123 - 96 - 2_500, 2_500, 25_000)
    assert sum(dataset["validation"]["labels"]) == 1_250
    assert sum(dataset["test"]["labels"]) == 12_500
    assert len(contents(dataset["test"])) < 25_000  # it repeats itself, as published
    assert not (contents(dataset["train"]) | contents(dataset["validation"])) & contents(dataset["test"])
