"""Retrieval: the official files as a stream, the stand-in, and damage to either."""

import gzip
import itertools
import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmaat.errors import UserError
from rmaat.tasks import TASKS, load
from rmaat.tasks.aan import AAN
from rmaat.tasks.statistics import part_statistics

PEAK = """
import resource, sys
from rmaat.tasks import TASKS, load
load(sys.argv[1], sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def put(folder: Path, **parts: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "eval", "test"):
        lines = [f"{i % 2}.0\tA{i}\tB{i}\t{part} first {i} é\t{part} second {i}\n".encode() for i in range(4)]
        (folder / f"new_aan_pairs.{part}.tsv").write_bytes(parts.get(part, b"".join(lines)))
    return folder


@pytest.mark.parametrize("inner", ["lra_release/lra_release/tsv_data", "lra_release/tsv_data", "aan", "tsv_data"])
def test_every_layout_is_read(tmp_path: Path, inner: str) -> None:
    put(tmp_path / inner)
    dataset = load("aan", tmp_path, max_seq_len=13)
    assert set(dataset["train"].features) == {"input_ids", "other_input_ids", "labels"}
    assert bytes(dataset["validation"][1]["input_ids"]).decode() == "eval first 1 "
    assert bytes(dataset["validation"][1]["other_input_ids"]).decode() == "eval second 1"
    assert dataset["test"]["labels"] == [0, 1, 0, 1]
    assert part_statistics(dataset["test"]).lengths["input_ids"].cut == 4


def test_pairs_of_later_parts_and_empty_texts_are_dropped_and_counted(tmp_path: Path) -> None:
    row = b"1\ta\tb\t%s\t%s\n"
    train = b"".join(
        [
            row % (b"x", b"y"),
            row % (b"v", b"w"),
            row % (b"w", b"v"),
            row % (b"new", b"y"),
            row % (b"", b"y"),
            row % (b"xy", b""),
        ]
    )
    put(tmp_path / "aan", train=train, eval=row % (b"v", b"w") + row % (b"x", b"y"), test=row % (b"x", b"y"))
    dataset = load("aan", tmp_path)
    assert [bytes(ids) for ids in dataset["train"]["input_ids"]] == [b"new"]
    assert [bytes(ids) for ids in dataset["validation"]["input_ids"]] == [b"v"]
    assert (
        sorted(part_statistics(dataset["train"]).notes)
        == [
            "dropped 3 pairs that a later part has too, in this order or the other",
            "dropped 2 pairs that lack a text",
        ][::-1]
    )


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"1\ta\tb\ttext", "4 columns, not the 5 of label, id1, id2, text1, text2"),
        (b"1\ta\tb\ttext\ttext\ttext", "6 columns"),
        (b"", "1 columns"),
        (b"2\ta\tb\tone\ttwo", "label must be 0 or 1, found '2'"),
        (b"label\tid1\tid2\ttext1\ttext2", "found 'label'"),
        (b"1\ta\tb\tone\tt\xffwo", "byte 1 of the text is not UTF-8"),
    ],
)
def test_damage_is_told_with_file_and_line(tmp_path: Path, line: bytes, word: str) -> None:
    put(tmp_path / "aan", train=b"1\ta\tb\tone\ttwo\n" + line + b"\n")
    with pytest.raises(UserError, match=rf"new_aan_pairs\.train\.tsv, line 2: .*{word}") as caught:
        load("aan", tmp_path)
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / ".rmaat_cache").glob("aan-*") if path.is_dir()]


@given(content=st.binary(max_size=80))
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    put(tmp_path / "aan", test=content)
    try:
        rows = list(AAN.build(tmp_path, 0)["test"].rows)
    except UserError as error:
        message = str(error)
    else:
        assert all(first and second for (first, second), _ in rows)
        return
    assert f"new_aan_pairs.test.tsv{', line ' if content else ' has no pairs'}" in message


def test_missing_files_say_where_from_and_where_to(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"train\.tsv is missing .*; get it with `rmaat data aan --download`, or unpack lra_release\.gz "
        r".*google-research.*lra_release is its",
    ):
        load("aan", tmp_path)


def test_the_stand_in_says_that_nobody_can_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"docs\.jsonl\.xz is missing .*not published.*the official task aan"):
        load("aan_lite", tmp_path)
    assert "not published" in TASKS["aan_lite"].info.source


def put_lite(data_dir: Path, papers: bytes | None = None, pairs: bytes = b"1\ta\tb\n0\tb\ta\n") -> Path:
    texts = b"".join(json.dumps({"id": name, "text": f"paper {name}"}).encode() + b"\n" for name in "abcd")
    (data_dir / "aan_lite_docs.jsonl.xz").write_bytes(lzma.compress(texts if papers is None else papers))
    for part in ("train", "eval", "test"):
        content = gzip.compress({"train": pairs, "eval": b"1\td\tb\n", "test": b"1\td\tc\n0\ta\tc\n"}[part])
        (data_dir / f"aan_lite_pairs.{part}.tsv.gz").write_bytes(content)
    return data_dir


def test_the_stand_in(tmp_path: Path) -> None:
    dataset = load("aan_lite", put_lite(tmp_path))
    assert [bytes(ids) for ids in dataset["train"]["input_ids"]] == [b"paper a", b"paper b"]
    assert [bytes(ids) for ids in dataset["train"]["other_input_ids"]] == [b"paper b", b"paper a"]
    assert dataset["train"]["labels"] == [1, 0]


def test_pairs_of_later_parts_are_dropped_in_either_order(tmp_path: Path) -> None:
    dataset = load("aan_lite", put_lite(tmp_path, pairs=b"1\ta\tb\n0\tc\ta\n1\td\tc\n0\tb\td\n"))
    assert [bytes(ids) for ids in dataset["train"]["input_ids"]] == [b"paper a"]
    assert list(part_statistics(dataset["train"]).notes) == [
        "dropped 3 pairs that a later part has too, in this order or the other"
    ]
    assert len(dataset["test"]) == 2


@pytest.mark.parametrize(
    ("papers", "pairs", "word"),
    [
        (b"[]\n", b"", r"docs\.jsonl\.xz, line 1: not a JSON object"),
        (b'{"id": "a", "text": ""}\n', b"", r"docs\.jsonl\.xz, line 1: the text is empty"),
        (b'{"id": 3, "text": "x"}\n', b"", r"docs\.jsonl\.xz, line 1: 'id' and 'text' must be strings"),
        (None, b"1\ta\tx\n", r"train\.tsv\.gz, line 1: aan_lite_docs\.jsonl\.xz has no paper 'x'"),
        (None, b"1\ta\n", r"train\.tsv\.gz, line 1: expected a label of 0 or 1 and two ids"),
        (None, b"", r"train\.tsv\.gz has no pairs"),
        (b"", b"1\ta\tb\n", r"docs\.jsonl\.xz has no papers"),
    ],
)
def test_damage_to_the_stand_in(tmp_path: Path, papers: bytes | None, pairs: bytes, word: str) -> None:
    put_lite(tmp_path, papers, pairs)
    with pytest.raises(UserError, match=word):
        load("aan_lite", tmp_path)


def test_cut_off_archives_are_told(tmp_path: Path) -> None:
    for name, cut in (("aan_lite_pairs.train.tsv.gz", 4), ("aan_lite_docs.jsonl.xz", 12)):
        path = put_lite(tmp_path) / name
        path.write_bytes(path.read_bytes()[:-cut])
        with pytest.raises(UserError, match=rf"{name}, after line \d+: not a whole"):
            load("aan_lite", tmp_path)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    peaks = []
    for name, count in (("small", 100), ("large", 30_000)):
        folder = put(tmp_path / name / "aan")
        with (folder / "new_aan_pairs.train.tsv").open("wb") as file:
            for i in range(count):
                file.write(b"1\ta\tb\t%d %s\t%s\n" % (i, b"x" * 5_000, b"y" * 5_000))
        done = subprocess.run(
            [sys.executable, "-c", PEAK, "aan", str(tmp_path / name)], capture_output=True, check=True
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 80, peaks  # MiB; the file has 300 and the data set 240


@pytest.mark.slow
def test_the_real_stand_in(shared_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RMAAT_CACHE", str(tmp_path))
    dataset = load("aan_lite", shared_data)
    assert tuple(map(len, dataset.values())) == (39_123, 4_801, 4_814)
    assert [sum(part["labels"]) for part in dataset.values()] == [19_553, 2_400, 2_407]
    pairs = []
    for part in dataset.values():
        columns = []
        for name in ("input_ids", "other_input_ids"):
            rows = []
            for chunk in part.data.column(name).chunks:
                flat, offsets = chunk.values.to_numpy().tobytes(), chunk.offsets.to_pylist()
                rows += [hash(flat[start:stop]) for start, stop in itertools.pairwise(offsets)]
            columns.append(rows)
        pairs.append(list(zip(*columns, strict=True)))
    train, validation, test = (set(map(frozenset, of_part)) for of_part in pairs)
    assert not test & train
    assert not test & validation
    assert not validation & train
    citing = [{first for first, _ in of_part} for of_part in pairs]
    assert not citing[0] & citing[2]
