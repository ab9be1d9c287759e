"""The scheduler with runners that compute nothing."""

import threading

import pytest

from rmaat.compare.grid.scheduler import available_cores, local_workers, run_jobs
from rmaat.errors import UserError


class Told:
    """A watcher that remembers."""

    def __init__(self):
        self.begun, self.done, self.ticks = [], [], 0

    def started(self, job):
        self.begun.append(job.cell.key)

    def ended(self, job, record):
        self.done.append((job.cell.key, record.status))

    def tick(self):
        self.ticks += 1


def test_every_job_runs_once_and_each_worker_has_one_at_a_time(jobs, record):
    """All workers must be busy at once for the barrier to open, and no worker twice."""
    meeting = threading.Barrier(2, timeout=20)
    busy, lock = set(), threading.Lock()

    def runner(job, environment, stopped):
        with lock:
            assert environment["PLACE"] not in busy
            busy.add(environment["PLACE"])
        meeting.wait()
        with lock:
            busy.remove(environment["PLACE"])
        meeting.wait()
        return record(job.cell)

    watcher = Told()
    run_jobs(jobs, [{"PLACE": "a"}, {"PLACE": "b"}], runner, watcher)
    assert sorted(watcher.begun) == sorted(job.cell.key for job in jobs)
    assert sorted(watcher.done) == sorted((job.cell.key, "finished") for job in jobs)


def test_one_worker_keeps_the_order(jobs, record):
    watcher = Told()
    run_jobs(jobs, [{}], lambda job, environment, stopped: record(job.cell, "failed", "no"), watcher)
    assert watcher.begun == [job.cell.key for job in jobs]
    assert sorted(watcher.done) == sorted((job.cell.key, "failed") for job in jobs)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_stops_what_runs_and_begins_nothing_more(jobs, error):
    running, ended = threading.Event(), []

    def runner(job, environment, stopped):
        running.set()
        pause = threading.Event()
        while not stopped():
            pause.wait(0.01)
        ended.append(job.cell.key)

    class Interrupted(Told):
        def tick(self):
            if running.is_set():
                raise error

    watcher = Interrupted()
    with pytest.raises(error):
        run_jobs(jobs, [{}], runner, watcher)
    assert ended == watcher.begun == [jobs[0].cell.key]
    assert watcher.done == []


def test_an_error_of_a_runner_is_not_lost(jobs):
    def runner(job, environment, stopped):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_jobs(jobs, [{}, {}], runner, Told())


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
    monkeypatch.setattr("rmaat.compare.grid.scheduler.available_cores", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5" if gpus else "")
    workers = local_workers(*asked)
    assert [worker.get("CUDA_VISIBLE_DEVICES") for worker in workers] == devices
    assert {worker["OMP_NUM_THREADS"] for worker in workers} == {str(threads)}


def test_workers_below_one_are_refused():
    with pytest.raises(UserError, match="--workers must be >= 1"):
        local_workers(0, None)
    with pytest.raises(UserError, match="--threads must be >= 1"):
        local_workers(None, -1)
    assert available_cores() >= 1
