"""A whole grid with a runner that computes nothing: what is run, what is kept, what is refused."""

import json
import re
import threading
from collections import Counter

import pytest

from rmaat.cli.main import main
from rmaat.compare.grid.accuracy import run_grid
from rmaat.compare.grid.cells import make_cells
from rmaat.compare.grid.presets import GRIDS
from rmaat.compare.grid.results import RESULTS, append, claimed, read
from rmaat.errors import UserError


@pytest.fixture
def ran(monkeypatch, record):
    """How often each cell was run; `ran.outcome(cell)` gives what becomes of it."""

    class Ran(Counter):
        def outcome(self, cell):
            return record(cell)

    ran = Ran()

    def runner(job, environment, stopped):
        ran[job.cell.key] += 1
        return ran.outcome(job.cell)

    monkeypatch.setattr("rmaat.compare.grid.accuracy.run_job", runner)
    return ran


def test_a_finished_cell_is_never_run_again_and_a_failed_one_is(cells, tmp_path, ran, record, capsys):
    fate = {cells[0].key: ("failed", "no room"), cells[1].key: ("diverged", "NaN")}
    ran.outcome = lambda cell: record(cell, *fate.get(cell.key, ()))
    first = run_grid(cells, tmp_path, workers=2)
    assert [line.status for line in first] == ["failed", "diverged", "finished", "finished"]
    ran.outcome = record
    second = run_grid(cells, tmp_path, workers=2)
    assert [line.status for line in second] == ["finished", "diverged", "finished", "finished"]
    run_grid(cells, tmp_path, workers=2)
    assert ran == {cells[0].key: 2, cells[1].key: 1, cells[2].key: 1, cells[3].key: 1}
    assert len((tmp_path / RESULTS).read_text().splitlines()) == 5
    assert "4 cells, 4 of them finished before" in capsys.readouterr().err


def test_a_cut_file_is_told_and_only_what_it_lost_runs_again(cells, tmp_path, ran, capsys):
    run_grid(cells, tmp_path, workers=1)
    path = tmp_path / RESULTS
    lost = json.loads(path.read_text().splitlines()[-1])
    path.write_text(path.read_text()[:-40])
    capsys.readouterr()
    run_grid(cells, tmp_path, workers=1)
    assert ran == {**{cell.key: 1 for cell in cells}, (lost["task"], lost["model"], lost["seed"]): 2}
    assert "left out 1 damaged line(s), kept 3" in capsys.readouterr().err
    assert [json.loads(line)["status"] for line in path.read_text().splitlines()] == ["finished"] * 4


def test_an_interrupted_grid_keeps_what_is_done(cells, tmp_path, ran, record):
    def outcome(cell):
        if cell == cells[2]:
            pause = threading.Event()
            while len(read(tmp_path).records) < 2:
                pause.wait(0.01)
            raise KeyboardInterrupt
        return record(cell)

    ran.outcome = outcome
    with pytest.raises(KeyboardInterrupt):
        run_grid(cells, tmp_path, workers=1)
    ran.outcome = record
    assert len(run_grid(cells, tmp_path, workers=1)) == 4
    assert all(ran[cell.key] == 1 for cell in cells[:2])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"models": ["rmaat"], "max_steps": 30}, "holds cells on listops_short with"),
        (
            {"models": ["rmaat[num_segments=2]"], "max_steps": 30},
            "max_steps 60 (now 30), eval_steps 20 (now 10); give another --output",
        ),
    ],
)
def test_cells_of_other_settings_do_not_share_a_folder(cells, tmp_path, ran, listops_dir, other, said):
    run_grid(cells, tmp_path, workers=1)
    ran.clear()
    with pytest.raises(UserError, match=re.escape(said)):
        run_grid(make_cells(GRIDS["smoke"], seeds=1, data_dir=str(listops_dir), **other), tmp_path, workers=1)
    assert not ran


def test_a_line_of_a_cell_with_another_model_of_the_same_name_is_refused(cells, tmp_path, ran, record):
    line = record(cells[0])
    line.values["settings"] = {**line.values["settings"], "hidden_act": "relu"}
    append(tmp_path, line)
    with pytest.raises(UserError, match=r"listops_short rmaat seed 0 with hidden_act relu \(now None\)"):
        run_grid(cells, tmp_path, workers=1)


def test_more_cells_join_those_that_are_there(cells, tmp_path, ran, listops_dir):
    run_grid(cells, tmp_path, workers=1)
    more = make_cells(GRIDS["smoke"], models=["rmt", "rmaat[astro_mem=false]"], seeds=1, data_dir=str(listops_dir))
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


def test_the_command_tells_what_failed_with_status_1(tmp_path, ran, record, listops_dir, capsys):
    ran.outcome = lambda cell: record(cell, "failed", "no room") if cell.model == "rmt" else record(cell)
    words = ["compare", "accuracy", "--preset", "smoke", "--models", "rmaat", "rmt", "--seeds", "2", "--workers", "1"]
    assert main([*words, "--output", str(tmp_path / "grid"), "--data_dir", str(listops_dir)]) == 1
    told = capsys.readouterr()
    assert "2 of 4 cells failed, the first, listops_short rmt seed 0: no room" in told.err
    assert "rmaat compare table" in told.out
    assert main(["compare", "table", str(tmp_path / "grid")]) == 0
    assert "| `rmt` | 2 failed | – |" in capsys.readouterr().out


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
    words = ["compare", "accuracy", "--output", str(tmp_path / "grid"), "--data_dir", str(listops_dir), *words]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
