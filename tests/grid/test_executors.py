"""Executors of this machine with cells that compute nothing, and the loop that feeds them."""

import threading

import pytest

from rmaat.errors import UserError
from rmaat.grid.executors import LocalExecutor, available_cores, local_environments
from rmaat.grid.run import run_cells, run_grid


class Watcher:
    """A board that remembers."""

    def __init__(self):
        self.begun, self.done, self.ticks = [], [], 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def started(self, cell, folder):
        self.begun.append(cell.key)

    def ended(self, outcome):
        self.done.append((outcome.cell.key, outcome.status))

    def tick(self):
        self.ticks += 1


@pytest.fixture
def run(monkeypatch, cells, tmp_path):
    """Run the cells on so many workers by a function in place of `run_cell`."""

    def run(run_cell, workers, watcher):
        monkeypatch.setattr("rmaat.grid.executors.run_cell", run_cell)
        return run_cells(cells, tmp_path, LocalExecutor(workers, None), watcher)

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

    watcher = Watcher()
    ends = run(run_cell, 2, watcher)
    assert sorted(end.cell.key for end in ends) == sorted(cell.key for cell in cells)
    assert sorted(watcher.begun) == sorted(cell.key for cell in cells)
    assert sorted(watcher.done) == sorted((cell.key, "finished") for cell in cells)
    assert watcher.ticks


def test_one_worker_keeps_the_order_and_has_the_cells_folder(cells, outcome, run, tmp_path):
    folders = []

    def run_cell(cell, folder, environment, stopped):
        folders.append(folder)
        return outcome(cell, "failed", "no")

    watcher = Watcher()
    run(run_cell, 1, watcher)
    assert watcher.begun == [cell.key for cell in cells]
    assert watcher.done == [(cell.key, "failed") for cell in cells]
    assert folders == [cell.folder(tmp_path) for cell in cells]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_stops_what_runs_and_begins_nothing_more(cells, outcome, run, error):
    running, ended = threading.Event(), []

    def run_cell(cell, folder, environment, stopped):
        running.set()
        pause = threading.Event()
        while not stopped():
            pause.wait(0.01)
        ended.append(cell.key)
        return outcome(cell, "begun")

    class Interrupted(Watcher):
        def tick(self):
            if running.is_set():
                raise error

    watcher = Interrupted()
    with pytest.raises(error):
        run(run_cell, 1, watcher)
    assert ended == watcher.begun == [cells[0].key]
    assert watcher.done == []


def test_an_error_of_a_worker_is_not_lost(run):
    def run_cell(cell, folder, environment, stopped):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(run_cell, 2, Watcher())


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
