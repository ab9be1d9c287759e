"""A whole grid whose cells compute nothing: what is run, what is left, what is refused."""

import re
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace

import pytest

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.grid.cells import make_cells
from rmaat.grid.outcomes import read_outcomes
from rmaat.grid.presets import GRIDS
from rmaat.grid.run import claimed, run_grid
from rmaat.training.run_folder import METRICS


@pytest.fixture
def ran(monkeypatch, outcome, leave):
    """How often each cell was run; `ran.outcome(cell)` gives what becomes of it."""

    class Ran(Counter):
        def outcome(self, cell):
            return outcome(cell)

    ran = Ran()

    def run_cell(cell, folder, environment, stopped):
        ran[cell.key] += 1
        ended = ran.outcome(cell)
        leave(ended, folder)
        return ended

    monkeypatch.setattr("rmaat.grid.executors.run_cell", run_cell)
    return ran


def test_only_a_failed_cell_is_run_again(cells, tmp_path, ran, outcome, capsys):
    fate = {cells[0].key: ("failed", "no room"), cells[1].key: ("diverged", "NaN")}
    ran.outcome = lambda cell: outcome(cell, *fate.get(cell.key, ()))
    first = run_grid(cells, tmp_path, workers=2)
    assert [end.status for end in first] == ["failed", "diverged", "finished", "finished"]
    ran.outcome = outcome
    second = run_grid(cells, tmp_path, workers=2)
    assert [end.status for end in second] == ["finished", "diverged", "finished", "finished"]
    assert second[1].reason == "NaN"
    run_grid(cells, tmp_path, workers=2)
    assert ran == {cells[0].key: 2, cells[1].key: 1, cells[2].key: 1, cells[3].key: 1}
    assert "4 cells, 4 of them finished before" in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, -20])
def test_only_a_cell_with_damaged_metrics_runs_again(cells, tmp_path, ran, size):
    run_grid(cells, tmp_path, workers=1)
    metrics = cells[3].folder(tmp_path) / METRICS
    metrics.write_text(metrics.read_text()[:size])
    assert [end.cell.key for end in read_outcomes(tmp_path)] == sorted(c.key for c in cells[:3])
    run_grid(cells, tmp_path, workers=1)
    assert ran == {**{cell.key: 1 for cell in cells}, cells[3].key: 2}
    assert [end.status for end in read_outcomes(tmp_path)] == ["finished"] * 4


def test_checkpoints_that_a_killed_grid_did_not_remove_are_removed(cells, tmp_path, ran):
    run_grid(cells, tmp_path, workers=1)
    checkpoint = cells[0].folder(tmp_path) / "checkpoint-4"
    checkpoint.mkdir()
    run_grid(cells, tmp_path, workers=1)
    assert not checkpoint.exists()
    assert ran[cells[0].key] == 1


def test_an_interrupted_grid_keeps_what_is_done(cells, tmp_path, ran, outcome):
    def interrupted(cell):
        if cell == cells[2]:
            pause = threading.Event()
            while len(read_outcomes(tmp_path)) < 2:
                pause.wait(0.01)
            raise KeyboardInterrupt
        return outcome(cell)

    ran.outcome = interrupted
    with pytest.raises(KeyboardInterrupt):
        run_grid(cells, tmp_path, workers=1)
    ran.outcome = outcome
    assert len(run_grid(cells, tmp_path, workers=1)) == 4
    assert all(ran[cell.key] == 1 for cell in cells[:2])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"models": ["rmaat"], "max_steps": 30}, "holds cells on listops_short with"),
        (
            {"models": ["rmaat[num_segments=2]"], "max_steps": 30},
            "max_steps 60 (now 30), warmup_steps 10 (now 5); give another --output",
        ),
    ],
)
def test_cells_of_other_settings_are_refused(cells, tmp_path, ran, listops_dir, other, said):
    run_grid(cells, tmp_path, workers=1)
    ran.clear()
    others = make_cells(GRIDS["smoke"], seeds=1, data_dir=str(listops_dir), **other)
    with pytest.raises(UserError, match=re.escape(said)):
        run_grid(others, tmp_path, workers=1)
    assert not ran


def test_a_cell_of_a_version_without_a_new_setting_counts(cells, tmp_path, ran, outcome, leave):
    assert cells[0].settings["unit_features"] is False
    earlier = {name: value for name, value in cells[0].settings.items() if name != "unit_features"}
    leave(outcome(replace(cells[0], settings=earlier)), cells[0].folder(tmp_path))
    run_grid(cells, tmp_path, workers=1)
    assert cells[0].key not in ran


def test_a_cell_of_another_model_of_that_name_is_refused(cells, tmp_path, ran, outcome, leave):
    other = replace(cells[0], settings={**cells[0].settings, "hidden_act": "relu"})
    leave(outcome(other), other.folder(tmp_path))
    message = r"listops_short rmaat seed 0 with hidden_act relu \(now gelu\)"
    with pytest.raises(UserError, match=message):
        run_grid(cells, tmp_path, workers=1)
    assert not ran


def test_more_cells_join_those_that_are_there(cells, tmp_path, ran, listops_dir):
    run_grid(cells, tmp_path, workers=1)
    models = ["rmt", "rmaat[astro_mem=false]"]
    more = make_cells(GRIDS["smoke"], models=models, seeds=1, data_dir=str(listops_dir))
    run_grid(more, tmp_path, workers=1)
    assert ran == {cell.key: 1 for cell in [*cells, more[1]]}


def test_a_folder_in_use_and_missing_data_are_refused_before_anything_runs(cells, tmp_path, ran):
    with claimed(tmp_path), pytest.raises(UserError, match="another grid is writing"):
        run_grid(cells, tmp_path)
    absent = make_cells(GRIDS["smoke"], models=["rmt"], seeds=1, data_dir=str(tmp_path / "none"))
    with pytest.raises(UserError, match="is missing"):
        run_grid(absent, tmp_path / "grid")
    assert not ran
    assert not (tmp_path / "grid").exists()


def test_the_command_names_what_failed_with_status_1(tmp_path, ran, outcome, listops_dir, capsys):
    fate = {"rmt": ("failed", "no room")}
    ran.outcome = lambda cell: outcome(cell, *fate.get(cell.model, ()))
    words = "compare accuracy --preset smoke --models rmaat rmt --seeds 2 --workers 1"
    folders = ["--output", str(tmp_path / "grid"), "--data_dir", str(listops_dir)]
    assert main([*words.split(), *folders]) == 1
    told = capsys.readouterr()
    assert "2 of 4 cells failed, the first, listops_short rmt seed 0: no room" in told.err
    assert "rmaat compare table" in told.out
    assert main(["compare", "table", str(tmp_path / "grid")]) == 0
    assert "| `rmt` | 2 failed | – |" in re.sub(" +", " ", capsys.readouterr().out)


def test_a_second_grid_is_refused_until_the_first_is_gone(tmp_path):
    script = f"""
import sys
from pathlib import Path
from rmaat.grid.run import claimed
with claimed(Path({str(tmp_path)!r})):
    print("locked", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match="another grid is writing"), claimed(tmp_path):
            pass
    finally:
        process.kill()
        process.communicate()
    with claimed(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), claimed(tmp_path / "file" / "grid"):
        pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--preset", "smoke", "--models", "rmatt"], "did you mean 'rmaat'"),
        (["--preset", "smoke", "--tasks", "listops_shor"], "did you mean 'listops_short'"),
        (["--preset", "smok"], "unknown preset 'smok'; did you mean 'smoke'"),
        (["--preset", "smoke", "--models"], "a grid with nothing in it"),
        (["--preset", "smoke", "--workers", "0"], "--workers must be >= 1"),
        (["--preset", "smoke", "--seeds", "-1"], "a grid with nothing in it"),
    ],
)
def test_mistakes_are_one_line(tmp_path, listops_dir, capsys, words, said):
    folders = ["--output", str(tmp_path / "grid"), "--data_dir", str(listops_dir)]
    assert main(["compare", "accuracy", *folders, *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
