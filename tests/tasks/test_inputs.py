"""Inputs of predictions: each kind in order, and bad ones among good ones."""

import gzip
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rmaat.tasks import TASKS
from rmaat.tasks.files import INFO
from rmaat.tasks.inputs import Example, read_inputs

PAIR = replace(INFO, pair=True)


def read(*inputs: object, columns: tuple[str, ...] = ("text",), **settings: object) -> list[Example]:
    info = PAIR if len(columns) == 2 else INFO
    return list(read_inputs(map(str, inputs), info, columns, **settings))


def named(examples: list[Example], folder: Path) -> dict[str, object]:
    """The texts or the problem of each example, by its name below the folder."""
    return {
        example.name.replace(f"{folder}/", ""): example.problem or " | ".join(example.texts) for example in examples
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {
        "b.txt": b"second",
        "a/z.txt": b"first",
        "a/.hidden.txt": b"no",
        ".git/c.txt": b"no",
        "c.txt.gz": gzip.compress(b"packed", mtime=0),
        "d.txt": b"\xff",
        "e.txt": b"last",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_folder_is_the_files_beneath_it_sorted_and_without_hidden_ones(folder: Path) -> None:
    (folder / "loop").symlink_to(folder)
    assert named(read(folder), folder) == {
        "a/z.txt": "first",
        "b.txt": "second",
        "c.txt.gz": "packed",
        "d.txt": "not UTF-8 text: invalid start byte at byte 0",
        "e.txt": "last",
    }
    assert list(named(read(folder), folder)) == ["a/z.txt", "b.txt", "c.txt.gz", "d.txt", "e.txt"]
    assert "e.txt" not in named(read(folder, left_out=(folder / "e.txt").resolve()), folder)
    (folder / "void").mkdir()
    assert read(folder / "void")[0].problem == "the folder has no file"


def test_an_input_that_is_missing_or_no_text_does_not_end_the_others(folder: Path) -> None:
    (folder / "e.txt").unlink()
    (folder / "e.txt").symlink_to("nowhere")
    (folder / "f.gz").write_bytes(b"no gzip")
    (folder / "g.gz").write_bytes(gzip.compress(b"cut off", mtime=0)[:-9])
    examples = named(read(*(folder / name for name in ("none", "d.txt", "e.txt", "f.gz", "g.gz", "b.txt"))), folder)
    assert examples["none"] == examples["e.txt"] == "cannot be read: No such file or directory"
    assert examples["b.txt"] == "second"
    assert [str(examples[name])[:14] for name in ("d.txt", "f.gz", "g.gz")] == [
        "not UTF-8 text",
        *["cannot be read"] * 2,
    ]
    assert named(read(folder), folder)["e.txt"] == "cannot be read: No such file or directory"


ROWS = [{"text": "one", "more": 1}, {"text": "", "more": 2}, {"text": "three", "more": 3}]


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "numbers"),
    [
        ("a.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in ROWS), (1, 2, 3)),
        ("a.csv", b"text,more\none,1\n,2\nthree,3\n", (2, 3, 4)),
        ("a.tsv.gz", gzip.compress(b"more\ttext\n1\tone\n2\t\n3\tthree\n", mtime=0), (2, 3, 4)),
        ("a.parquet", parquet(), (1, 2, 3)),
    ],
)
def test_a_file_of_records_is_an_example_a_row(tmp_path: Path, name: str, content: bytes, numbers: list[int]) -> None:
    (tmp_path / name).write_bytes(content)
    examples = read(tmp_path / name)
    texts = ("one", "column 'text' is empty", "three")
    assert named(examples, tmp_path) == {f"{name}:{n}": text for n, text in zip(numbers, texts, strict=True)}
    assert all(example.is_row for example in examples)


def test_a_file_that_is_damaged_behind_its_first_rows_gives_those_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "one"}\n' + b'{"text": "%s"}\n' % (bytes(range(48, 91)) * 900))[:-20])
    first, damage = read(path)
    assert (first.name, first.texts) == (f"{path}:1", ("one",))
    assert damage.name == str(path)
    assert not damage.is_row
    assert str(damage.problem).startswith("after line 1: not a whole .gz file")
    (tmp_path / "b.csv").write_text("txt\none\n")
    assert named(read(tmp_path / "b.csv"), tmp_path) == {
        "b.csv": "line 1: no column 'text'; did you mean 'txt'? known: txt"
    }


def test_pairs_are_files_two_by_two_and_rows(folder: Path) -> None:
    (folder / "p.jsonl").write_text('{"a": "x", "b": "y"}\n{"a": "x"}\n')
    files = [folder / name for name in ("b.txt", "p.jsonl", "a/z.txt", "d.txt", "b.txt", "c.txt.gz")]
    assert named(read(*files, columns=("a", "b")), folder) == {
        "p.jsonl:1": "x | y",
        "p.jsonl:2": "no column 'b'; known: a",
        "b.txt, a/z.txt": "second | first",
        "d.txt, b.txt": f"{folder}/d.txt: not UTF-8 text: invalid start byte at byte 0",
        "c.txt.gz": "a run on files takes files two by two; this one has no second",
    }
    (example,) = read_inputs([str(folder / "p.jsonl")], PAIR, ("a",))
    assert "give --other_text_column" in str(example.problem)


def test_standard_input_is_one_text_and_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    class Piped:
        buffer = io.BytesIO("naïve".encode())

    monkeypatch.setattr(sys, "stdin", Piped())
    assert read("-") == [Example("standard input", ("naïve",))]
    pictures = list(read_inputs(["-", "a.jsonl"], TASKS["mnist"].info, ("text",)))
    assert pictures[0].problem == "a picture cannot come from standard input"
    assert pictures[1].texts == ("a.jsonl",)
