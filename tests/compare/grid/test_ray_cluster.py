"""Cells over a Ray cluster: with a module that stands for ray, and with ray itself where it is installed."""

import importlib.util
import socket
import sys
import types

import pytest

from rmaat.cli.main import main
from rmaat.compare.grid.accuracy import run_grid
from rmaat.compare.grid.cells import make_cells
from rmaat.compare.grid.presets import GRIDS
from rmaat.compare.grid.ray_cluster import RayRunner
from rmaat.compare.grid.results import read
from rmaat.errors import UserError


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
        return lambda function: types.SimpleNamespace(remote=lambda *given: (function, given))

    def wait(self, tasks, timeout):
        return (tasks, []) if self.answers else ([], tasks)

    def get(self, task):
        if task in self.cancelled:
            raise LookupError
        function, given = task
        return function(*given)

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


def test_without_ray_the_command_that_installs_it_is_told(tmp_path, monkeypatch, listops_dir, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["--preset", "smoke", "--models", "rmt", "--output", str(tmp_path), "--data_dir", str(listops_dir)]
    assert main(["compare", "accuracy", *words, "--ray_address", "auto"]) == 2
    assert "pip install 'rmaat[ray]'" in capsys.readouterr().err


def test_a_machine_without_a_cluster_is_refused(install):
    install(StandIn({}))
    with pytest.raises(UserError, match="no Ray cluster at --ray_address 'auto': nobody answers"):
        RayRunner("auto", None)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_is_tried_before_ray_is_asked_which_would_wait_for_minutes(install, form):
    ray = install(StandIn({"CPU": 1.0}))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = form.format(server.getsockname()[1])
        RayRunner(address, None)
    assert ray.asked == address
    ray.asked = None
    with pytest.raises(UserError, match=f"no Ray cluster at --ray_address '{address}': .*refused"):
        RayRunner(address, None)
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
def test_a_cell_asks_for_its_threads_and_a_gpu_where_there_are_any(install, resources, threads, asked, workers, gpus):
    ray = install(StandIn(resources))
    runner = RayRunner("auto", threads)
    assert ray.options == {"num_cpus": threads or 1, "num_gpus": gpus, "max_retries": 0}
    environments = runner.workers(asked)
    assert len(environments) == workers
    assert {e["OMP_NUM_THREADS"] for e in environments} == {str(threads or 1)}


def test_a_grid_over_a_cluster_runs_each_cell_there(install, monkeypatch, cells, tmp_path, record):
    ray = install(StandIn({"CPU": 2.0}))
    seen = []

    def run(job, environment):
        seen.append(job.cell.key)
        return record(job.cell)

    monkeypatch.setattr("rmaat.compare.grid.ray_cluster.run_job", run)
    run_grid(cells, tmp_path, ray_address="auto")
    assert sorted(seen) == sorted(cell.key for cell in cells)
    assert len(read(tmp_path).records) == 4
    assert ray.closed


def test_a_stopped_job_is_cancelled(install, jobs):
    ray = install(StandIn({"CPU": 1.0}, answers=False))
    runner = RayRunner("auto", None)
    assert runner(jobs[0], {}, lambda: True) is None
    assert [given[0] for _, given in ray.cancelled] == [jobs[0]]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray: pip install 'rmaat[ray]'")
def test_a_cell_over_ray_itself(listops_dir, tmp_path):
    cells = make_cells(GRIDS["smoke"], models=["rmt"], seeds=1, data_dir=str(listops_dir), max_steps=3)
    (record,) = run_grid(cells, tmp_path, ray_address="local")
    assert record.status == "finished", record.reason
    assert record.values["steps"] == 3
