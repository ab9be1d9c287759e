"""Cells on the machines of a Ray cluster. They and this one must see the grid's folder and the data under the same paths."""

import contextlib
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any

from rmaat.compare.grid.process import POLL_SECONDS, Job, run_job
from rmaat.compare.grid.results import Record
from rmaat.compare.grid.scheduler import thread_limits
from rmaat.errors import UserError

KNOCK_SECONDS = 5.0
HOST_AND_PORT = re.compile(r"(?:ray://)?(?P<host>[^:/]+|\[[^]]+\]):(?P<port>\d+)")


class RayRunner:
    """Runs jobs on a cluster; a `rmaat.compare.grid.scheduler.Runner`.

    Each job asks the cluster for `threads` CPUs and, where it has any GPU, for one of them; Ray picks the machine and sets
    CUDA_VISIBLE_DEVICES there.

    Raises:
        UserError: where Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str, threads: int | None) -> None:
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "--ray_address needs the package ray; install it with `pip install 'rmaat[ray]'`"
            ) from error

        self._ray: Any = ray
        self._threads = threads or 1
        try:
            _knock(address)
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise UserError(f"no Ray cluster at --ray_address '{address}': {' '.join(str(error).split())}") from error
        found = ray.cluster_resources()
        self._gpus = int(found.get("GPU", 0))
        self._cpus = int(found.get("CPU", 0))
        # A task that Ray runs again by itself would meet the folder of its killed twin.
        self._remote = ray.remote(num_cpus=self._threads, num_gpus=int(self._gpus > 0), max_retries=0)(run_job)

    def workers(self, count: int | None) -> list[dict[str, str]]:
        """As many as asked for, else as the cluster has room for."""
        room = min(self._cpus // self._threads, self._gpus or self._cpus)
        return [thread_limits(self._threads) for _ in range(count or max(1, room))]

    def __call__(self, job: Job, environment: Mapping[str, str], stopped: Callable[[], bool]) -> Record | None:
        """Run one job somewhere on the cluster."""
        task = self._remote.remote(job, dict(environment))
        while not stopped():
            done, _ = self._ray.wait([task], timeout=POLL_SECONDS)
            if done:
                return self._ray.get(task)
        self._ray.cancel(task)
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.get(task)
        return None

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at a host and port: Ray itself would try for minutes."""
    if place := HOST_AND_PORT.fullmatch(address):
        socket.create_connection((place["host"].strip("[]"), int(place["port"])), KNOCK_SECONDS).close()
