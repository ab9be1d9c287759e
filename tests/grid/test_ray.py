"""Cells on a Ray cluster: with a module in place of ray, and with ray itself if installed."""

import importlib.util
import socket
import sys
import types
from concurrent.futures import Future
from functools import partial

import pytest

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.grid.cells import make_cells
from rmaat.grid.executors import RayExecutor
from rmaat.grid.presets import GRIDS
from rmaat.grid.run import run_grid


class Task:
    """A task that ended at once, or one that never ends."""

    def __init__(self, answers, function, *arguments):
        self.arguments, self.ended = arguments, Future()
        if answers:
            self.ended.set_result(function(*arguments))

    def future(self):
        return self.ended


class StandIn(types.ModuleType):
    """Runs tasks at once, or never; remembers what it was asked."""

    def __init__(self, resources, answers=True):
        super().__init__("ray")
        self.resources, self.answers = resources, answers
        self.options, self.cancelled, self.closed = {}, [], False
        self.exceptions = types.SimpleNamespace(RayError=LookupError)

    def init(self, address, **options):
        self.asked = address
        if address == "auto" and not self.resources:
            raise ConnectionError("nobody\nanswers")

    def cluster_resources(self):
        return self.resources

    def remote(self, **options):
        self.options = options
        return lambda function: types.SimpleNamespace(remote=partial(Task, self.answers, function))

    def get(self, task):
        if not task.ended.done():
            assert task in self.cancelled
            raise LookupError
        return task.ended.result()

    def cancel(self, task):
        self.cancelled.append(task)

    def shutdown(self):
        self.closed = True


@pytest.fixture
def install(monkeypatch):
    def install(module):
        monkeypatch.setitem(sys.modules, "ray", module)
        return module

    return install


def test_without_ray_the_error_names_its_install(tmp_path, monkeypatch, listops_dir, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = "compare accuracy --preset smoke --models rmt --ray_address auto"
    assert main([*words.split(), "--output", str(tmp_path), "--data_dir", str(listops_dir)]) == 2
    assert "pip install 'rmaat[ray]'" in capsys.readouterr().err


def test_a_machine_without_a_cluster_is_refused(install):
    install(StandIn({}))
    with pytest.raises(UserError, match="no Ray cluster at --ray_address 'auto': nobody answers"):
        RayExecutor("auto", None, None)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_is_tried_before_ray_is_asked_which_would_wait_for_minutes(install, form):
    ray = install(StandIn({"CPU": 1.0}))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = form.format(server.getsockname()[1])
        RayExecutor(address, None, None)
    assert ray.asked == address
    ray.asked = None
    with pytest.raises(UserError, match=f"no Ray cluster at --ray_address '{address}': .*refused"):
        RayExecutor(address, None, None)
    assert ray.asked is None


@pytest.mark.parametrize(
    ("resources", "threads", "asked", "workers", "gpus"),
    [
        ({"CPU": 64.0}, None, None, 64, 0),
        ({"CPU": 64.0}, 4, None, 16, 0),
        ({"CPU": 64.0, "GPU": 8.0}, 4, None, 8, 1),
        ({"CPU": 16.0, "GPU": 8.0}, 4, None, 4, 1),
        ({"CPU": 2.0}, 4, None, 1, 0),
        ({"CPU": 2.0}, None, 7, 7, 0),
    ],
)
def test_a_cell_asks_for_threads_and_a_gpu(install, resources, threads, asked, workers, gpus):
    ray = install(StandIn(resources))
    executor = RayExecutor("auto", asked, threads)
    assert ray.options == {"num_cpus": threads or 1, "num_gpus": gpus, "max_retries": 0}
    assert executor.slots == workers


def test_a_grid_runs_on_a_cluster(install, monkeypatch, cells, tmp_path, outcome, leave):
    ray = install(StandIn({"CPU": 4.0}))
    seen = []

    def run_cell(cell, folder, environment):
        seen.append((cell.key, folder, environment["OMP_NUM_THREADS"]))
        leave(outcome(cell), folder)
        return outcome(cell)

    monkeypatch.setattr("rmaat.grid.executors.run_cell", run_cell)
    ends = run_grid(cells, tmp_path, ray_address="auto", threads=2)
    assert sorted(seen) == sorted((c.key, c.folder(tmp_path), "2") for c in cells)
    assert [end.status for end in ends] == ["finished"] * 4
    assert ray.closed
    run_grid(cells, tmp_path, ray_address="auto")
    assert len(seen) == 4


def test_stopped_cells_are_cancelled(install, cells, tmp_path):
    ray = install(StandIn({"CPU": 2.0}, answers=False))
    executor = RayExecutor("auto", None, None)
    futures = [executor.submit(cell, cell.folder(tmp_path)) for cell in cells[:2]]
    assert not any(future.done() for future in futures)
    executor.stop()
    assert [task.arguments[0] for task in ray.cancelled] == cells[:2]
    assert ray.closed


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs `pip install 'rmaat[ray]'`")
def test_a_cell_over_ray_itself(listops_dir, tmp_path):
    data = str(listops_dir)
    cells = make_cells(GRIDS["smoke"], models=["rmt"], seeds=1, data_dir=data, max_steps=3)
    (outcome,) = run_grid(cells, tmp_path, ray_address="local")
    assert outcome.status == "finished", outcome.reason
    assert outcome.metrics["steps"] == 3
