"""Running the cells of a grid, as many at a time as there are workers."""

import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Protocol

from rmaat.compare.grid.process import Job
from rmaat.compare.grid.results import Record
from rmaat.errors import UserError

TICK_SECONDS = 0.5


class Runner(Protocol):
    """Runs one job; see `rmaat.compare.grid.process.run_job`."""

    def __call__(self, job: Job, environment: Mapping[str, str], stopped: Callable[[], bool]) -> Record | None:
        """What became of it, or None where it was stopped."""


class Watcher(Protocol):
    """Is told how a grid goes on."""

    def started(self, job: Job) -> None:
        """A worker took the job; called from its thread."""

    def ended(self, job: Job, record: Record) -> None:
        """The job has come to an end; called from the main thread."""

    def tick(self) -> None:
        """Called from the main thread about twice a second."""


def run_jobs(jobs: Sequence[Job], workers: Sequence[Mapping[str, str]], runner: Runner, watcher: Watcher) -> None:
    """Run all jobs in their order, one at a time on each worker.

    Where it is interrupted (Ctrl-C) or the runner or watcher raises, the running jobs are stopped before that goes on.

    Args:
        jobs: what to run.
        workers: for each, the environment variables that its processes get.
        runner: runs one job.
        watcher: is told.
    """
    free: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
    for worker in workers:
        free.put(worker)
    stop = threading.Event()

    def work(job: Job) -> Record | None:
        if stop.is_set():
            return None
        worker = free.get()
        try:
            watcher.started(job)
            return runner(job, worker, stop.is_set)
        finally:
            free.put(worker)

    with ThreadPoolExecutor(len(workers)) as pool:
        running = {pool.submit(work, job): job for job in jobs}
        try:
            while running:
                done, _ = wait(running, TICK_SECONDS, FIRST_COMPLETED)
                for future in done:
                    record = future.result()
                    assert record is not None
                    watcher.ended(running.pop(future), record)
                watcher.tick()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def local_workers(count: int | None, threads: int | None) -> list[dict[str, str]]:
    """The workers of this machine: one a GPU, or as many on the CPU as its cores allow.

    Args:
        count: how many; None means one a GPU, or cores / threads where there is none.
        threads: CPU threads of each; None means its share of the cores beside GPUs, else 1.

    Raises:
        UserError: where either is below 1.
    """
    for name, value in (("workers", count), ("threads", threads)):
        if value is not None and value < 1:
            raise UserError(f"--{name} must be >= 1, not {value}")
    devices, cores = visible_gpus(), available_cores()
    if devices:
        count = count or len(devices)
        threads = threads or max(1, cores // count)
        gpus = [{"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} for i in range(count)]
    else:
        threads = threads or 1
        gpus = [{} for _ in range(count or max(1, cores // threads))]
    return [{**gpu, **thread_limits(threads)} for gpu in gpus]


def thread_limits(threads: int) -> dict[str, str]:
    """The environment variables that keep a process to that many threads."""
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES would name, one entry a GPU."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


def available_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
