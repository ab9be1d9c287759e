"""`rmaat data` and `rmaat list tasks`: what they print, and one line for every mistake."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from rmaat.cli.main import main
from rmaat.tasks import TASKS

SMALL = ("--num_train", "20", "--num_val", "5", "--num_test", "5")


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RMAAT_DATA", raising=False)
    monkeypatch.setenv("RMAAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")


def test_generate_again_and_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "listops_short", "--data_dir", str(tmp_path), *SMALL]
    assert main([*command, "--show", "2"]) == 0
    out = capsys.readouterr().out
    assert "20 / 5 / 5 examples from seed 0, generated" in out
    assert out.count("sha256") == 3
    assert out.count(" tokens)  [") == 2
    assert main(command) == 0
    assert "there already" in capsys.readouterr().out
    assert main([*command, "--seed", "1"]) == 2
    assert "--overwrite true" in capsys.readouterr().err
    assert main([*command, "--seed", "1", "--overwrite", "true"]) == 0
    settings = json.loads((tmp_path / "listops_short" / "settings.json").read_text())
    assert settings["seed"] == 1
    assert settings["counts"] == {"train": 20, "validation": 5, "test": 5}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["lisstops"], "did you mean 'listops'"),
        (["imdb", "--num_train", "5"], "are for generated tasks; imdb reads files"),
        (["imdb"], "imdb_train.jsonl.xz is missing"),
        (["listops", "--num_train", "0"], "train part needs at least 1"),
        (["listops", "--num_train", "many"], "num_train"),
        (["listops", "--seed", "-1"], "--seed must not be negative"),
        (["listops", "--show", "-1"], "--show must not be negative"),
        (["listops", "--nonsense", "1"], "nonsense"),
    ],
)
def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], word: str) -> None:
    assert main(["data", *arguments, "--data_dir", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("rmaat: error: ")
    assert captured.err.count("\n") == 1
    assert word in captured.err


def test_folder_of_many_files_gets_one_checksum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "test"):
        for label in ("neg", "pos"):
            folder = tmp_path / "aclImdb" / part / label
            folder.mkdir(parents=True)
            for i in range(10):
                (folder / f"{i}_5.txt").write_text(f"{part} {label} {i}")
    assert main(["data", "imdb", "--data_dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "imdb: 18 / 2 / 20 examples\n" in out
    assert "0_5.txt and 39 more  420 bytes  sha256 of all " in out
    assert out.count("\n") == 2


def test_files_cut_off_at_a_line_are_told_without_being_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train.jsonl", "test.parquet"):
        (tmp_path / name).write_text('{"text": "a", "label": "0"}\n{"text": "b", "label": "1"}\n')
    files = ["--train_file", f"{tmp_path}/train.jsonl", "--test_file", f"{tmp_path}/test.parquet"]
    assert main(["data", "files", "--data_dir", str(tmp_path), *files]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "test.parquet, after row 0: not a whole Parquet file" in captured.err


def test_what_is_there_is_told_and_shown_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "listops_short", "--data_dir", str(tmp_path)]
    assert main([*command, *SMALL, "--seed", "3"]) == 0
    files = {path: path.read_bytes() for path in (tmp_path / "listops_short").iterdir()}
    assert "from seed 3, generated" in capsys.readouterr().out
    assert main([*command, "--show", "2"]) == 0
    out = capsys.readouterr().out
    assert "20 / 5 / 5 examples from seed 3, there already" in out
    assert out.count(" tokens)  [") == 2
    assert {path: path.read_bytes() for path in (tmp_path / "listops_short").iterdir()} == files


def put_release(data_dir: Path) -> Path:
    folder = data_dir / "lra_release" / "listops-1000"
    folder.mkdir(parents=True)
    for i, part in enumerate(("train", "val", "test")):
        (folder / f"basic_{part}.tsv").write_text(f"Source\tTarget\n( [MIN 9 ) {i} ]\t{i}\n")
    return folder


def test_the_release_is_read_where_nothing_asks_for_other_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = put_release(tmp_path)
    command = ["data", "listops", "--data_dir", str(tmp_path)]
    assert main([*command, "--show", "1"]) == 0
    out = capsys.readouterr().out
    assert "listops: 1 / 1 / 1 examples, there already" in out
    assert "0  (4 tokens)  [MIN 9 0 ]" in out
    (release / "basic_val.tsv").unlink()
    assert main(command) == 2
    assert "unpack the release again, or remove it" in capsys.readouterr().err
    assert not (tmp_path / "listops").exists()
    assert main([*command, *SMALL]) == 0
    assert "20 / 5 / 5 examples from seed 0, generated" in capsys.readouterr().out


def test_list_tells_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "listops_short", "--data_dir", str(tmp_path), *SMALL])
    capsys.readouterr()
    assert main(["list", "tasks", "--data_dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines if line.endswith(("found", "missing"))}
    assert set(rows) == set(TASKS.names())
    assert max(map(len, lines[1:])) <= 110
    assert "found" in rows["listops_short"]
    assert "missing" in rows["listops"]
    assert "    generated by `rmaat data listops`, or lra_release/listops-1000" in lines
    assert {f"    {TASKS[name].info.summary}" for name in TASKS.names()} <= set(lines)
    assert "missing" in rows["imdb_lra"]
    assert "4,096" in rows["imdb_lra"]
    assert main(["list", "taks"]) == 2


def test_help_is_immediate() -> None:
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "rmaat", "data", "--help"], capture_output=True, text=True, check=True)
    assert time.monotonic() - start < 1.5  # 0.3 s on an idle machine
    assert "listops_short" in done.stdout


def test_show_pictures_on_one_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "pathfinder32_easy", "--data_dir", str(tmp_path), *SMALL, "--show", "5"]) == 0
    out = capsys.readouterr().out
    assert "train: apart: 10, connected: 10" in out
    last = out.splitlines()[-1]
    sheet, _, labels = last.partition("  row by row: ")
    assert len(labels.split(", ")) == 5
    with Image.open(sheet) as picture:
        assert picture.size == (3 * 132 - 4, 2 * 132 - 4)


def test_own_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "test"):
        rows = "".join(json.dumps({"body": f"{part} text {i}", "y": "ab"[i % 2]}) + "\n" for i in range(20))
        (tmp_path / f"{part}.jsonl").write_text(rows)
    files = ["--train_file", f"{tmp_path}/train.jsonl", "--test_file", f"{tmp_path}/test.jsonl"]
    columns = ["--text_column", "body", "--label_column", "y"]
    assert main(["data", "files", "--data_dir", str(tmp_path), *files, *columns, "--show", "1"]) == 0
    out = capsys.readouterr().out
    assert "train: a: 9, b: 9" in out
    assert "validation: a: 1, b: 1" in out
    assert "(12 bytes)  train text" in out
    assert main(["data", "files", *files]) == 2
    assert "line 1: no column 'text'; known: body, y" in capsys.readouterr().err


@pytest.mark.parametrize("show", [(), ("--show", "1")])
def test_own_files_are_always_described_in_their_unit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], show: tuple[str, ...]
) -> None:
    for part in ("train", "test"):
        rows = [{"text": f"{part} {i} é", "label": "ab"[i % 2]} for i in range(20)]
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ["--train_file", str(tmp_path / "train.jsonl"), "--test_file", str(tmp_path / "test.jsonl")]
    assert main(["data", "files", "--data_dir", str(tmp_path), *files, *show]) == 0
    lines = capsys.readouterr().out.splitlines()
    headings = ["part", "examples", "bytes", "in", "p50", "p95", "longest"]
    assert [line.split() for line in lines].count(headings) == 1
    assert ["test", "20", "input_ids", "10", "10", "10"] in [line.split() for line in lines]
    assert "train: a: 9, b: 9" in lines
    assert sum(" bytes)  train" in line for line in lines) == len(show) // 2
