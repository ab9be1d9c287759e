"""Running a grid into a folder, from where it was left."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from rmaat.compare.grid.cells import Cell, computed
from rmaat.compare.grid.live import Board
from rmaat.compare.grid.process import Job, run_job
from rmaat.compare.grid.ray_cluster import RayRunner
from rmaat.compare.grid.results import RESULTS, Record, append, claimed, mend
from rmaat.compare.grid.scheduler import Runner, local_workers, run_jobs
from rmaat.errors import UserError
from rmaat.tasks import data_folder, task_of
from rmaat.tasks.options import TaskOptions


def run_grid(
    cells: Sequence[Cell],
    output: Path,
    workers: int | None = None,
    threads: int | None = None,
    ray_address: str | None = None,
) -> list[Record]:
    """Run the cells that the folder does not hold yet, and add a line each to its cells.jsonl.

    Args:
        cells: the grid.
        output: the folder of the grid.
        workers: cells at a time; see `local_workers`.
        threads: CPU threads of a cell.
        ray_address: a Ray cluster to run on in place of this machine.

    Returns:
        What became of each cell, those of earlier calls included.

    Raises:
        UserError: where another grid is writing there, the folder holds cells of other settings, data is missing, or there is
            no such cluster; before anything is run.
    """
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    jobs = [Job(cell, cell.folder(output).resolve()) for cell in cells]
    _check_data(cells)
    with claimed(output):
        results = mend(output)
        if results.damaged:
            console.print(
                f"{output / RESULTS}: left out {results.damaged} damaged line(s), kept {len(results.records)}"
            )
        for job in jobs:
            _check_same(job, list(results.records.values()), output)
        final = [record for record in results.records.values() if record.final]
        held = {record.key for record in final}
        waiting = [job for job in jobs if job.cell.key not in held]
        console.print(f"{len(jobs)} cells, {len(jobs) - len(waiting)} of them finished before")
        if waiting:
            _run(waiting, Board(jobs, final, console), output, workers, threads, ray_address)
        found = mend(output).records
    return [found[cell.key] for cell in cells]


def _run(
    jobs: Sequence[Job], board: Board, output: Path, workers: int | None, threads: int | None, ray_address: str | None
) -> None:
    runner: Runner = run_job
    close: Callable[[], None] | None = None
    if ray_address:
        cluster = RayRunner(ray_address, threads)
        runner, close, places = cluster, cluster.close, cluster.workers(workers)
    else:
        places = local_workers(workers, threads)
    try:
        with board:
            run_jobs(jobs, places, runner, _Recorder(board, output))
    finally:
        if close:
            close()


class _Recorder:
    """Writes each record down before it is shown."""

    def __init__(self, board: Board, output: Path) -> None:
        self._board = board
        self._output = output
        self.started = board.started
        self.tick = board.tick

    def ended(self, job: Job, record: Record) -> None:
        append(self._output, record)
        self._board.ended(job, record)


def _check_data(cells: Sequence[Cell]) -> None:
    for cell in {cell.task: cell for cell in cells}.values():
        run = cell.run_config(Path())
        task_of(run.dataset, TaskOptions.of(run)).sources(data_folder(run.data_dir))


def _check_same(job: Job, records: Sequence[Record], output: Path) -> None:
    """Refuse to put runs of different settings into one column of a table, or to take them for the cell that is wanted."""
    cell = job.cell
    for record in records:
        if record.task == cell.task:
            _check_equal(cell.base, record.values["base"], f"'{output}' holds cells on {cell.task}")
        if record.key == cell.key:
            _check_equal(computed(cell.settings), record.values["settings"], f"'{output}' holds {cell}")


def _check_equal(wanted: dict[str, Any], held: dict[str, Any], where: str) -> None:
    names = [name for name in {**wanted, **held} if wanted.get(name) != held.get(name)]
    if names:
        differing = ", ".join(f"{name} {held.get(name)} (now {wanted.get(name)})" for name in names)
        raise UserError(f"{where} with {differing}; give another --output")
