"""The folder of a run: its lock, and what a new run removes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rmaat.errors import UserError
from rmaat.training import run_folder

HOLD = """
import sys, os
from pathlib import Path
from rmaat.training.run_folder import claimed
with claimed(Path(sys.argv[1]), 0):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_folder_that_a_process_holds_is_refused_until_the_process_dies(tmp_path, monkeypatch, rank):
    monkeypatch.setattr(run_folder, "LOCK_SECONDS", 0)
    environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another run is writing"), run_folder.claimed(tmp_path, 0):
            pass
    finally:
        holder.kill()
        holder.wait()
    with run_folder.claimed(tmp_path, 0):
        assert {path.name for path in tmp_path.iterdir()} >= {".lock"}


def test_the_processes_of_one_run_do_not_exclude_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "LOCK_SECONDS", 0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with run_folder.claimed(tmp_path, 0):
        monkeypatch.setenv("RANK", "0")
        with run_folder.claimed(tmp_path, 0):
            pass


def old_run(folder: Path) -> None:
    """The files of a finished run, and one of the user's own."""
    for step in (4, 8):
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "trainer_state.json").write_text(json.dumps({"best_global_step": step}))
        (checkpoint / "files.json").write_text("{}")
    figures = ("curves.png", "confusion.png", "reliability.png")
    written = ("metrics.json", "run.yaml", "stages.json", "config.json", "model.safetensors", "README.md")
    for name in (*written, *figures, "notes"):
        (folder / name).write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer").mkdir()


@pytest.mark.parametrize(
    "name", ["run.yaml", "model.safetensors", "checkpoint-4", "tokenizer", "tokenizer.json", "README.md"]
)
def test_any_file_of_a_run_is_refused_without_overwrite(tmp_path, name):
    old_run(tmp_path / "old")
    (tmp_path / "new").mkdir()
    (tmp_path / "old" / name).rename(tmp_path / "new" / name)
    with pytest.raises(UserError, match=f"already holds a run \\({name}\\)"):
        run_folder.clear(tmp_path / "new", overwrite=False)
    run_folder.clear(tmp_path / "new", overwrite=True)
    run_folder.clear(tmp_path / "new", overwrite=False)


def test_an_overwrite_killed_at_any_moment_leaves_no_run_to_resume_or_use(tmp_path, monkeypatch):
    """Each call that removes something is interrupted once."""
    removed = 0
    while True:
        folder = tmp_path / str(removed)
        old_run(folder)
        calls = 0

        def counted(honest, limit=removed):
            def remove(*arguments, **keywords):
                nonlocal calls
                if calls == limit:
                    raise KeyboardInterrupt
                calls += 1
                return honest(*arguments, **keywords)

            return remove

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", counted(Path.unlink))
            patch.setattr("shutil.rmtree", counted(shutil.rmtree))
            try:
                run_folder.clear(folder, overwrite=True)
                break
            except KeyboardInterrupt:
                pass
        left = {path.name for path in folder.iterdir()}
        if left & {"metrics.json", "run.yaml", "stages.json"}:
            assert left >= {
                "checkpoint-4",
                "checkpoint-8",
                "config.json",
                "model.safetensors",
                "curves.png",
                "tokenizer",
            }
        assert "metrics.json" not in left or removed == 0, "the mark of a finished run is removed first"
        removed += 1
    assert removed > 8
    assert [path.name for path in folder.iterdir()] == ["notes"]
