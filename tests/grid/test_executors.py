"""Executors of this machine with cells that compute nothing, and the loop that feeds them."""

import io
import re
import threading

import pytest
from rich.console import Console

from rmaat.errors import UserError
from rmaat.grid.executors import LocalExecutor, available_cores, local_environments
from rmaat.grid.run import run_cells, run_grid


@pytest.fixture(params=[False, True])
def console(request):
    """Not a terminal, and one."""
    screen = {"force_terminal": request.param, "color_system": None}
    return Console(file=io.StringIO(), soft_wrap=True, **screen)


@pytest.fixture
def run(monkeypatch, cells, tmp_path, console):
    """Run the cells on so many workers by a function in place of `run_cell`."""

    def run(run_cell, workers):
        monkeypatch.setattr("rmaat.grid.executors.run_cell", run_cell)
        executor = LocalExecutor(workers, None)
        return run_cells(cells, tmp_path, executor, console, total=7, before=3)

    return run


def test_every_cell_runs_once_and_each_worker_has_one_at_a_time(cells, outcome, run, monkeypatch):
    """All workers must be busy at once for the barrier to open, and no worker twice."""
    places = [{"PLACE": "a"}, {"PLACE": "b"}]
    monkeypatch.setattr("rmaat.grid.executors.local_environments", lambda *asked: places)
    meeting = threading.Barrier(2, timeout=20)
    busy, lock = set(), threading.Lock()

    def run_cell(cell, folder, environment, stopped):
        with lock:
            assert environment["PLACE"] not in busy
            busy.add(environment["PLACE"])
        meeting.wait()
        with lock:
            busy.remove(environment["PLACE"])
        meeting.wait()
        return outcome(cell)

    ends = run(run_cell, 2)
    assert sorted(end.cell.key for end in ends) == sorted(cell.key for cell in cells)


def test_one_worker_keeps_the_order_and_says_what_it_does(cells, outcome, run, console, tmp_path):
    folders = []

    def run_cell(cell, folder, environment, stopped):
        folders.append(folder)
        if cell == cells[0]:
            return outcome(cell, test_accuracy=0.375)
        return outcome(cell, "failed", "no")

    run(run_cell, 1)
    assert folders == [cell.folder(tmp_path) for cell in cells]
    # Without the control sequences that draw the bar anew.
    lines = re.sub(r"\x1b\[\??\d*[A-Za-z]", "", console.file.getvalue()).splitlines()
    assert [line for line in lines if "listops_short" in line][:4] == [
        "listops_short rmaat seed 0 started",
        "[4/7] listops_short rmaat seed 0: test accuracy 37.50%, after 0.0 min",
        "listops_short rmt seed 0 started",
        "[5/7] listops_short rmt seed 0: failed: no, after 0.0 min",
    ]
    assert any(line.startswith("cells ") for line in lines) == console.is_terminal


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_begins_nothing_more(cells, outcome, run, monkeypatch, error):
    running, ended = threading.Event(), []

    def run_cell(cell, folder, environment, stopped):
        running.set()
        pause = threading.Event()
        while not stopped():
            pause.wait(0.01)
        ended.append(cell.key)
        return outcome(cell, "begun")

    def interrupted(*arguments):
        running.wait()
        raise error

    monkeypatch.setattr("rmaat.grid.run.wait", interrupted)
    with pytest.raises(error):
        run(run_cell, 1)
    assert ended == [cells[0].key]


def test_an_error_of_a_worker_is_not_lost(run):
    def run_cell(cell, folder, environment, stopped):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(run_cell, 2)


@pytest.mark.parametrize(
    ("gpus", "asked", "devices", "threads"),
    [
        (0, (None, None), [None] * 8, 1),
        (0, (None, 3), [None] * 2, 3),
        (0, (None, 9), [None], 9),
        (0, (5, None), [None] * 5, 1),
        (2, (None, None), ["3", "5"], 4),
        (2, (4, None), ["3", "5", "3", "5"], 2),
        (2, (1, 6), ["3"], 6),
    ],
)
def test_workers_of_this_machine(monkeypatch, gpus, asked, devices, threads):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("rmaat.grid.executors.available_cores", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5" if gpus else "")
    workers = local_environments(*asked)
    assert [worker.get("CUDA_VISIBLE_DEVICES") for worker in workers] == devices
    assert {worker["OMP_NUM_THREADS"] for worker in workers} == {str(threads)}


def test_workers_below_one_are_refused(cells, tmp_path):
    with pytest.raises(UserError, match="--workers must be >= 1"):
        run_grid(cells, tmp_path, workers=0)
    with pytest.raises(UserError, match="--threads must be >= 1"):
        run_grid(cells, tmp_path, threads=-1)
    assert available_cores() >= 1
