"""Reading ListOps files: both forms, every layout, every kind of damage."""

from pathlib import Path

import numpy as np
import pytest

from rmaat.errors import UserError
from rmaat.problems import NEXT_TOKEN
from rmaat.tasks import TASKS, load
from rmaat.tasks.listops import LISTOPS, LISTOPS_SHORT
from rmaat.tasks.statistics import part_statistics

GOOD = "Source\tTarget\n( ( ( [MIN 3 ) 4 ) ] )\t3\n[SM 9 [MED 1 2 ] ]\t0\n"
TEST = "Source\tTarget\n[MED 1 ]\t1\n[MED 2 ]\t2\n"


def put(folder: Path, train: str = GOOD, newline: str = "\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("train", train), ("val", "Source\tTarget\n[MAX 1 2 ]\t2\n"), ("test", TEST)):
        (folder / f"basic_{name}.tsv").write_text(text, newline=newline)
    return folder


@pytest.mark.parametrize("place", ["listops", "lra_release/listops-1000", "lra_release/lra_release/listops-1000"])
def test_every_layout_is_read(tmp_path: Path, place: str) -> None:
    put(tmp_path / place, newline="\r\n")
    dataset = load("listops", tmp_path)
    assert set(dataset) == {"train", "validation", "test"}
    train = dataset["train"]
    assert train.column_names == ["input_ids", "labels"]
    assert train[0] == {"input_ids": [10, 3, 4, 14], "labels": 3}
    assert train[1]["input_ids"] == [13, 9, 12, 1, 2, 14, 14]
    assert str(train.features["input_ids"].feature.dtype) == "uint8"


def test_long_sequences_are_cut_and_counted(tmp_path: Path) -> None:
    put(tmp_path / "listops")
    train = load("listops", tmp_path, max_seq_len=5)["train"]
    assert train[1]["input_ids"] == [13, 9, 12, 1, 2]
    assert part_statistics(train).lengths["input_ids"].cut == 1


def test_expressions_of_later_parts_are_dropped_and_counted(tmp_path: Path) -> None:
    folder = put(tmp_path / "listops", GOOD + "[MED 2 ]\t2\n[MAX 1 2 ]\t2\n( [MED 1 ) ]\t1\n")
    with (folder / "basic_val.tsv").open("a") as file:
        file.write("[MED 1 ]\t1\n")
    dataset = load("listops", tmp_path)
    assert [len(part) for part in dataset.values()] == [2, 1, 2]
    assert dataset["train"]["labels"] == [3, 0]
    assert [list(part_statistics(part).notes) for part in dataset.values()] == [
        ["dropped 3 expressions that a later part has too"],
        ["dropped 1 expressions that a later part has too"],
        [],
    ]
    (folder / "basic_train.tsv").write_text(TEST)
    with pytest.raises(UserError, match=r"train part of listops: dropped 2 expressions that a later part has too"):
        load("listops", tmp_path)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ("", ["line 1", "Source and Target"]),
        ("Target\tSource\n3\t3\n", ["line 1", "Source and Target"]),
        ("Source\tTarget\n", ["no examples"]),
        (GOOD + "[MIN 3 ]\n", ["line 4", "a tab and a digit"]),
        (GOOD + "[MIN 3 ]\t12\n", ["line 4", "a tab and a digit"]),
        (GOOD + "\n" + GOOD, ["line 4"]),
        (GOOD + "[MIN 3 x ]\t3\n", ["line 4", "'x'", "allowed"]),
        (GOOD + "[MIN 3 a 4 ] ]\t3\n", ["line 4", "'a'", "allowed"]),
        (GOOD + "[MIN 34 ]\t3\n", ["line 4", "'34'", "allowed"]),
        (GOOD + "[MIN 3  ]\t3\n", ["line 4", "allowed"]),
        (GOOD + "( )\t3\n", ["line 4", "allowed"]),
        (GOOD + "[MIN 3 4\t3\n", ["line 4", "bracket"]),
        (GOOD + "[MIN 3 4 ]\t4\n", ["line 4", "target is 4", "value is 3"]),
    ],
)
def test_damage_is_told_with_file_and_line(tmp_path: Path, train: str, words: list[str]) -> None:
    put(tmp_path / "listops", train)
    with pytest.raises(UserError) as caught:
        load("listops", tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for word in ["basic_train.tsv", *words]:
        assert word in message


def test_missing_files_are_told_with_folders_and_remedy(tmp_path: Path) -> None:
    put(tmp_path / "listops")
    (tmp_path / "listops" / "basic_val.tsv").unlink()
    with pytest.raises(UserError, match=r"basic_val\.tsv is missing .*listops-1000.*rmaat data listops --data_dir"):
        LISTOPS.sources(tmp_path)
    with pytest.raises(UserError, match="rmaat data listops_short"):
        LISTOPS_SHORT.sources(tmp_path)


def test_encode_and_decode() -> None:
    ids = LISTOPS.encode(" [MAX 2\t9\n[MIN 4 7 ] ] ")
    assert ids.dtype == np.uint8
    assert ids.tolist() == [11, 2, 9, 10, 4, 7, 14, 14]
    assert LISTOPS.decode(ids) == LISTOPS.decode(ids.tolist()) == "[MAX 2 9 [MIN 4 7 ] ]"


@pytest.mark.parametrize(
    ("text", "word"),
    [("", "empty"), ("  ", "empty"), ("[ADD 1 ]", r"'\[ADD'"), ("[MIN 1", "needs its"), ("é", "allowed")],
)
def test_encode_refuses(text: str, word: str) -> None:
    with pytest.raises(UserError, match=word):
        LISTOPS.encode(text)


def test_every_task_describes_itself() -> None:
    for name in TASKS.names():
        info = TASKS[name].info
        assert info.name == name
        assert info.max_seq_len > 0
        if name not in ("files", "texts"):  # what the user's files hold is not known before they are given
            assert info.label_names or info.problem_type == NEXT_TOKEN
            assert all(size > 0 for size in info.sizes)
