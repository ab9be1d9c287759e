"""Where the cells of a grid run: in processes of this machine, or on a Ray cluster."""

import contextlib
import os
import re
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from rmaat.errors import UserError
from rmaat.grid.cells import Cell
from rmaat.grid.outcomes import Outcome
from rmaat.grid.process import run_cell

CONNECT_SECONDS = 5.0
HOST_AND_PORT = re.compile(r"(?:ray://)?(?P<host>[^:/]+|\[[^]]+\]):(?P<port>\d+)")


class Executor(Protocol):
    """Runs cells, several at a time.

    Attributes:
        slots: how many cells run at a time.
    """

    slots: int

    def submit(self, cell: Cell, folder: Path) -> "Future[Outcome]":
        """Run a cell in its folder."""

    def stop(self) -> None:
        """Stop the running cells, and wait until they have stopped."""


class LocalExecutor:
    """Processes of this machine; see `local_environments`."""

    def __init__(self, workers: int | None, threads: int | None) -> None:
        # Each thread of the pool takes one and puts it back.
        self._free = local_environments(workers, threads)
        self.slots = len(self._free)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(self.slots)

    def submit(self, cell: Cell, folder: Path) -> "Future[Outcome]":
        """Start a process, or queue the cell if all workers are busy."""
        return self._pool.submit(self._run, cell, folder)

    def stop(self) -> None:
        """End the processes."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _run(self, cell: Cell, folder: Path) -> Outcome:
        environment = self._free.pop()
        try:
            return run_cell(cell, folder, environment, self._stop.is_set)
        finally:
            self._free.append(environment)


class RayExecutor:
    """Tasks on a Ray cluster, whose machines see folders and data under the same paths as this one.

    Each task asks for `threads` CPUs and, if the cluster has GPUs, for one. Ray picks the machine
    and sets CUDA_VISIBLE_DEVICES there.

    Raises:
        UserError: if Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str, workers: int | None, threads: int | None) -> None:
        try:
            import ray
        except ImportError as error:
            install = "install it with `pip install 'rmaat[ray]'`"
            raise UserError(f"--ray_address needs the package ray; {install}") from error
        try:
            if place := HOST_AND_PORT.fullmatch(address):
                # Ray itself would try for minutes if nothing listens there.
                host_and_port = place["host"].strip("[]"), int(place["port"])
                socket.create_connection(host_and_port, CONNECT_SECONDS).close()
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"no Ray cluster at --ray_address '{address}': {reason}") from error
        self._ray: Any = ray
        self._threads = threads or 1
        gpus, cpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        self.slots = workers or max(1, min(cpus // self._threads, gpus or cpus))
        # Without retries: a task that Ray repeats could meet the process of the first attempt.
        remote = ray.remote(num_cpus=self._threads, num_gpus=int(gpus > 0), max_retries=0)
        self._run_cell = remote(run_cell)
        self._tasks: list[Any] = []

    def submit(self, cell: Cell, folder: Path) -> "Future[Outcome]":
        """Start a task."""
        task = self._run_cell.remote(cell, folder, thread_limits(self._threads))
        self._tasks.append(task)
        return task.future()

    def stop(self) -> None:
        """Cancel the tasks that have not ended, and leave the cluster."""
        for task in self._tasks:
            self._ray.cancel(task)
        for task in self._tasks:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.get(task)
        self._ray.shutdown()


def make_executor(workers: int | None, threads: int | None, ray_address: str | None) -> Executor:
    """Return the executor of a grid: on a Ray cluster if there is an address, else local."""
    if not ray_address:
        return LocalExecutor(workers, threads)
    return RayExecutor(ray_address, workers, threads)


def local_environments(workers: int | None, threads: int | None) -> list[dict[str, str]]:
    """Return the environment variables of each worker of this machine.

    Args:
        workers: how many; None means one a GPU, or without GPUs cores / threads.
        threads: CPU threads of each; None means its share of the cores with GPUs, else 1.
    """
    devices, cores = visible_gpus(), available_cores()
    if not devices:
        threads = threads or 1
        return [thread_limits(threads) for _ in range(workers or max(1, cores // threads))]
    workers = workers or len(devices)
    limits = thread_limits(threads or max(1, cores // workers))
    places = [devices[index % len(devices)] for index in range(workers)]
    return [limits | {"CUDA_VISIBLE_DEVICES": place} for place in places]


def thread_limits(threads: int) -> dict[str, str]:
    """Return the environment variables that limit a process to so many threads."""
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def visible_gpus() -> list[str]:
    """Return a value for CUDA_VISIBLE_DEVICES for each GPU that this process sees."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


def available_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
