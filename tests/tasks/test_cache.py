"""The cache: built once, by content, shared by processes, and whole whenever a process is killed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rmaat.errors import UserError
from rmaat.tasks import arrow, data_folder, load
from rmaat.tasks.base import Progress
from rmaat.tasks.cache import cache_folder
from rmaat.tasks.listops import LISTOPS_SHORT

GOOD = "Source\tTarget\n[MIN 3 4 ]\t3\n[SM 9 [MED 1 2 ] ]\t0\n"
BAD = "Source\tTarget\nnonsense\n"

SLOW_LOADER = """
import sys, time, pathlib
from rmaat.tasks import load
from rmaat.tasks.listops import ListOps
build, log = ListOps.build, pathlib.Path(sys.argv[2])
def slow_build(self, *arguments):
    with log.open("a") as file:
        file.write("built\\n")
    time.sleep(float(sys.argv[3]))
    return build(self, *arguments)
ListOps.build = slow_build
print(load("listops_short", sys.argv[1])["train"][1]["labels"])
"""

KILLED_WHILE_SAVING = """
import os, signal, sys
from rmaat.tasks import cache, load
write = cache.write_part
def write_half(path, *arguments):
    if path.stem == "validation":
        path.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, *arguments)
cache.write_part = write_half
load("listops_short", sys.argv[1])
"""


def put(data_dir: Path, text: str = GOOD) -> Path:
    folder = data_dir / "listops_short"
    folder.mkdir(parents=True, exist_ok=True)
    for name in LISTOPS_SHORT.file_names:
        (folder / name).write_text(text)
        text = re.sub(r"^\[.*\]", r"[MAX \g<0> ]", text, flags=re.M)  # each part has its own, of the same values
    return data_dir


def built(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir() and path.name != "checksums")


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_built_once_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path)
    first = load("listops_short", tmp_path)
    monkeypatch.setattr(LISTOPS_SHORT, "build", None)
    assert load("listops_short", tmp_path)["train"].to_dict() == first["train"].to_dict()
    # ListOps has its own validation file, so the seed is no part of the key.
    assert load("listops_short", tmp_path, seed=5)["train"].cache_files == first["train"].cache_files
    assert len(built(tmp_path / ".rmaat_cache")) == 1


def test_a_bar_is_shown_only_while_building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "PROGRESS_ROWS", 2)
    shown: list[tuple[str, int | None]] = []
    done: list[int] = []

    @contextmanager
    def bar(description: str, total: int | None) -> Iterator[Progress]:
        shown.append((description, total))
        yield done.append
        shown.append(("closed", None))

    put(tmp_path, GOOD + "[MAX 1 2 ]\t2\n")
    load("listops_short", tmp_path, bar=bar)
    closed = ("closed", None)
    told = [("hashing, MB", 1), ("reading listops_short", None), ("building listops_short", 9)]
    assert shown == [one for opened in told for one in (opened, closed)]
    assert [count for count in done if count] == [2, 1] * 3
    load("listops_short", tmp_path, bar=bar)
    assert len(shown) == 6


def test_changed_files_are_never_served_stale(tmp_path: Path) -> None:
    put(tmp_path)
    assert load("listops_short", tmp_path)["train"][0]["labels"] == 3
    put(tmp_path, GOOD.replace("[MIN 3 4 ]\t3", "[MAX 3 4 ]\t4"))
    assert load("listops_short", tmp_path)["train"][0]["labels"] == 4
    assert len(built(tmp_path / ".rmaat_cache")) == 2


def test_other_content_of_the_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    train = put(tmp_path) / "listops_short" / "basic_train.tsv"
    load("listops_short", tmp_path)
    before = train.stat()
    train.write_text(GOOD.replace("[MIN 3 4 ]\t3", "[MAX 3 4 ]\t4"))
    os.utime(train, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (train.stat().st_size, train.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert load("listops_short", tmp_path)["train"][0]["labels"] == 4


def test_a_file_moved_to_another_label_is_noticed(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in ("neg", "pos"):
            folder = tmp_path / "aclImdb" / part / label
            folder.mkdir(parents=True)
            for i in range(10, 22):
                (folder / f"{i}_5.txt").write_text(f"{part} {label} {i}")
    # The first of all files stays the first: only its folder tells that the label is another one.
    folder = tmp_path / "aclImdb" / "test"
    (folder / "neg" / "9_5.txt").write_text("moved")
    assert load("imdb", tmp_path)["test"][0]["labels"] == 0
    (folder / "neg" / "9_5.txt").replace(folder / "pos" / "9_5.txt")
    assert load("imdb", tmp_path)["test"][0]["labels"] == 1


def test_a_file_changed_while_it_is_read_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path)
    build = LISTOPS_SHORT.build

    def change_first(*arguments: Any) -> Any:
        put(tmp_path, GOOD.replace("[MIN 3 4 ]\t3", "[MAX 3 4 ]\t4"))
        return build(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LISTOPS_SHORT, "build", change_first)
        with pytest.raises(UserError, match="listops_short were changed while they were read"):
            load("listops_short", tmp_path)
    assert built(tmp_path / ".rmaat_cache") == []
    assert load("listops_short", tmp_path)["train"][0]["labels"] == 4


@pytest.mark.parametrize(
    ("name", "keep"), [("test.arrow", 200), ("test.arrow", -40), ("train.arrow", None), ("test.json", 0)]
)
def test_a_damaged_data_set_is_built_again_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, keep: int | None
) -> None:
    put(tmp_path)
    whole = {split: part.to_dict() for split, part in load("listops_short", tmp_path).items()}
    (folder,) = (tmp_path / ".rmaat_cache").glob("listops_short-*[0-9a-f]/")
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if keep is not None:
        (folder / name).write_bytes(content[:keep])
    assert {split: part.to_dict() for split, part in load("listops_short", tmp_path).items()} == whole
    assert f"{folder} is damaged and is built again" in caplog.text
    caplog.clear()
    load("listops_short", tmp_path)
    assert not caplog.text


def test_a_data_set_cut_off_between_batches_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path)
    load("listops_short", tmp_path)
    (arrow_file,) = (tmp_path / ".rmaat_cache").glob("*/test.arrow")
    with pa.ipc.open_stream(arrow_file.read_bytes()) as stream:
        schema = stream.schema
    with pa.OSFile(str(arrow_file), "wb") as file, pa.ipc.new_stream(file, schema):
        pass  # a whole stream, of no batch
    assert len(load("listops_short", tmp_path)["test"]) == 2


def test_a_cache_that_can_be_read_only_is_told(tmp_path: Path) -> None:
    put(tmp_path)
    load("listops_short", tmp_path)
    for lock in (tmp_path / ".rmaat_cache").glob("listops_short-*.lock"):
        lock.with_suffix("").rename(tmp_path / "away")
        lock.unlink()
        lock.mkdir()  # stands for a folder without write permission, which does not keep a superuser out
    with pytest.raises(UserError, match=r"\.rmaat_cache: the built data set cannot be written .*RMAAT_CACHE"):
        load("listops_short", tmp_path)


def test_touched_but_equal_files_are_not_built_again(tmp_path: Path) -> None:
    put(tmp_path)
    load("listops_short", tmp_path)
    for path in (tmp_path / "listops_short").iterdir():
        os.utime(path, (1, 1))
    load("listops_short", tmp_path)
    assert len(built(tmp_path / ".rmaat_cache")) == 1


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    put(tmp_path, BAD)
    with pytest.raises(UserError, match="line 2"):
        load("listops_short", tmp_path)
    assert built(tmp_path / ".rmaat_cache") == []


def test_two_processes_build_once(tmp_path: Path) -> None:
    put(tmp_path)
    log = tmp_path / "log"
    processes = [start(SLOW_LOADER, tmp_path, log, 1) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert [out for out, _ in outputs] == ["0\n", "0\n"]
    assert log.read_text() == "built\n"


def test_killed_while_building(tmp_path: Path) -> None:
    put(tmp_path)
    log = tmp_path / "log"
    process = start(SLOW_LOADER, tmp_path, log, 60)
    while not log.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert [Path(name).suffix for name in built(tmp_path / ".rmaat_cache")] == [".partial"]
    assert len(load("listops_short", tmp_path)["test"]) == 2


def test_killed_while_saving(tmp_path: Path) -> None:
    put(tmp_path)
    process = start(KILLED_WHILE_SAVING, tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    root = tmp_path / ".rmaat_cache"
    assert [Path(name).suffix for name in built(root)] == [".partial"]
    assert set(load("listops_short", tmp_path)) == {"train", "validation", "test"}
    assert [Path(name).suffix for name in built(root)] == [""]


def test_cache_folder_by_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    assert cache_folder(data_dir) == data_dir / ".rmaat_cache"
    data_dir.chmod(0o555)
    assert cache_folder(data_dir) == Path.home() / ".cache" / "rmaat"
    monkeypatch.setenv("RMAAT_CACHE", str(tmp_path / "chosen"))
    assert cache_folder(data_dir) == tmp_path / "chosen"
    (tmp_path / "file").touch()
    monkeypatch.setenv("RMAAT_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(UserError, match=r"cannot be made .*RMAAT_CACHE"):
        cache_folder(data_dir)


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMAAT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "checksums").touch()
    with pytest.raises(UserError, match=r"checksums cannot be written .*RMAAT_CACHE"):
        load("listops_short", put(tmp_path))


def test_data_folder_by_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_folder() == Path("datasets")
    monkeypatch.setenv("RMAAT_DATA", "elsewhere")
    assert data_folder() == Path("elsewhere")
    assert data_folder("given") == Path("given")


def test_mistakes_in_the_call(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'listops'"):
        load("listop", tmp_path)
    with pytest.raises(UserError, match="max_seq_len must be at least 1, got 0"):
        load("listops", tmp_path, max_seq_len=0)
    with pytest.raises(UserError, match="seed must not be negative"):
        load("listops", tmp_path, seed=-1)


def test_naming_tasks_imports_nothing_heavy() -> None:
    script = (
        "import sys, rmaat.tasks, rmaat.cli.data, rmaat.cli.list\n"
        "rmaat.tasks.TASKS.names()\n"
        "print([name for name in ('torch', 'datasets', 'numba', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_what_a_killed_process_left_among_the_checksums_is_removed(tmp_path: Path) -> None:
    put(tmp_path)
    leftover = tmp_path / ".rmaat_cache" / "checksums" / ".0123.456789abcdef.partial"
    leftover.parent.mkdir(parents=True)
    leftover.write_text("half")
    load("listops_short", tmp_path)
    assert not leftover.exists()
