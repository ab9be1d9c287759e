"""`rmaat data`, killed at any moment that shows on disk and run again, gives what an undisturbed run gives."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

SMALL = ("--num_train", "3000", "--num_val", "600", "--num_test", "600")

PATIENCE = 300
"""Seconds within which a moment must come or the command end."""


def start(task: Sequence[str], data_dir: Path, cache: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rmaat", "data", *task, "--data_dir", str(data_dir), "--show", "1"]
    environment = {**os.environ, "RMAAT_CACHE": str(cache)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors.decode()


def kill_when_there(process: subprocess.Popen[bytes], root: Path, pattern: str) -> bool:
    """Kill once a path of that pattern is there and not empty; whether the process was still at work then."""
    until = time.monotonic() + PATIENCE
    while process.poll() is None and not any(map(_is_begun, root.glob(pattern))):
        assert time.monotonic() < until
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def _is_begun(path: Path) -> bool:
    try:
        return path.is_dir() or path.stat().st_size > 0
    except FileNotFoundError:  # renamed in between
        return False


def contents(*folders: Path) -> dict[str, bytes]:
    """All files below, but for locks and the memo of checksums, whose names hold the files' times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock" and path.name != ".lock" and path.parent.name != "checksums"
    }


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".partial" in path.name or ".ready" in path.name]


def check(task: Sequence[str], data_dirs: tuple[Path, Path], tmp_path: Path, moments: Sequence[str]) -> None:
    """Run undisturbed in the first data folder, then in the second kill at all moments in turn, and finish."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(task, data_dirs[0], whole / "cache"))
    expected = contents(data_dirs[0], whole)
    caught = [kill_when_there(start(task, data_dirs[1], killed / "cache"), tmp_path, moment) for moment in moments]
    assert sum(caught) >= len(moments) - 1, dict(zip(moments, caught, strict=True))  # a rename may be over too soon
    finish(start(task, data_dirs[1], killed / "cache"))
    assert contents(data_dirs[1], killed) == expected
    assert not leftovers(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "moments"),
    [
        ("listops_short", [".partial", ".partial/basic_test.tsv", ".partial/basic_train.tsv", "settings.json"]),
        ("pathfinder32_easy", [".partial/.train.npz.*.partial", "settings.json"]),
    ],
)
def test_while_generating(tmp_path: Path, task: str, moments: list[str]) -> None:
    in_place = [f"data/{task}/{moment}" for moment in moments]
    check([task, *SMALL], (tmp_path / "undisturbed", tmp_path / "data"), tmp_path, in_place)


@pytest.mark.slow
def test_while_building_from_files(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    (data_dir / "aan").mkdir(parents=True)
    for part in ("train", "eval", "test"):
        with (data_dir / "aan" / f"new_aan_pairs.{part}.tsv").open("w") as file:
            for i in range(20_000):
                file.write(f"{i % 2}.0\tA{i}\tB{i}\t{f'{part} {i} ' * 50}\t{f'{i} {part} ' * 50}\n")
    moments = [f"killed/cache/aan-*.partial{name}" for name in ("", "/train.arrow", "/validation.arrow", "/test.arrow")]
    check(["aan"], (data_dir, data_dir), tmp_path, moments)
