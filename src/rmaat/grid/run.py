"""Running a grid into a folder: what is finished there is not run again."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from rmaat.errors import CellsFailedError, UserError
from rmaat.grid.cells import Cell, effective
from rmaat.grid.executors import Executor, make_executor
from rmaat.grid.outcomes import FAILED, FINISHED, Outcome, read_outcomes
from rmaat.grid.process import remove_checkpoints
from rmaat.machine.locks import LockHeldError, locked
from rmaat.tasks import data_folder, task_of
from rmaat.tasks.options import TaskOptions
from rmaat.terminal import console
from rmaat.training.config import RunConfig

TICK_SECONDS = 0.5

ACCURACIES = {"test_accuracy": "test accuracy", "eval_accuracy": "validation accuracy"}
"""The figures of metrics.json that the line of a finished cell may show, in words."""


def run_grid(
    cells: Sequence[Cell],
    output: Path,
    workers: int | None = None,
    threads: int | None = None,
    ray_address: str | None = None,
) -> list[Outcome]:
    """Run the cells that are not finished or diverged in the folder.

    Args:
        cells: the grid.
        output: the folder of the grid.
        workers: cells at a time; see `rmaat.grid.executors`.
        threads: CPU threads of a cell.
        ray_address: a Ray cluster to run on instead of this machine.

    Returns:
        The outcome of each cell.

    Raises:
        UserError: before anything runs, if another grid is writing to the folder, the folder holds
            cells of other settings, data is missing, or there is no such cluster.
    """
    check_counts(workers, threads)
    check_data(cells)
    screen = console(stderr=True)
    with claimed(output):
        stored = read_outcomes(output)
        for cell in cells:
            _check_settings(cell, stored, output)
        wanted = {cell.key for cell in cells}
        done = {o.cell.key: o for o in stored if o.final and o.cell.key in wanted}
        finish_removal(done.values(), output)
        waiting = [cell for cell in cells if cell.key not in done]
        screen.print(f"{len(cells)} cells, {len(done)} of them finished before")
        if waiting:
            executor = make_executor(workers, threads, ray_address)
            outcomes = run_cells(
                waiting,
                output.resolve(),
                executor,
                screen,
                total=len(cells),
                before=len(done),
            )
            done |= {outcome.cell.key: outcome for outcome in outcomes}
    return [done[cell.key] for cell in cells]


def run_cells(
    cells: Iterable[Cell],
    output: Path,
    executor: Executor,
    screen: Console,
    *,
    total: int,
    before: int = 0,
    accuracy: str = "test_accuracy",
) -> list[Outcome]:
    """Run cells in their order, as many at a time as the executor has slots.

    Print a line as each begins and ends, and in a terminal a bar of all. The running cells are
    stopped if anything is raised, such as by Ctrl-C.

    Args:
        cells: those to run; the next one is taken when a slot is free.
        output: the folder of the grid, absolute.
        executor: runs the cells; it is stopped at the end.
        screen: takes the lines and the bar.
        total: number of cells of the grid.
        before: number of cells of the grid that have ended before.
        accuracy: what the line of a finished cell shows, one of `ACCURACIES`.
    """
    waiting, running, outcomes = iter(cells), dict[Future[Outcome], float](), list[Outcome]()
    bars = Progress(console=screen, disable=not screen.is_terminal)
    bar = bars.add_task("cells", completed=before, total=total)
    try:
        with bars:
            while True:
                while len(running) < executor.slots and (cell := next(waiting, None)) is not None:
                    running[executor.submit(cell, cell.folder(output))] = time.monotonic()
                    screen.print(f"{cell} started")
                if not running:
                    break
                for future in wait(running, TICK_SECONDS, FIRST_COMPLETED).done:
                    outcomes.append(future.result())
                    minutes = (time.monotonic() - running.pop(future)) / 60
                    count = f"[{before + len(outcomes)}/{total}]"
                    line = _line(outcomes[-1], accuracy)
                    screen.print(f"{count} {line}, after {minutes:.1f} min")
                    bars.advance(bar)
    finally:
        executor.stop()
    return outcomes


def _line(outcome: Outcome, accuracy: str) -> str:
    if outcome.status == FINISHED:
        return f"{outcome.cell}: {ACCURACIES[accuracy]} {100 * outcome.metrics[accuracy]:.2f}%"
    return f"{outcome.cell}: {outcome.status}: {outcome.reason}"


def check_counts(workers: int | None, threads: int | None) -> None:
    """Raise `UserError` for a number of workers or threads below one."""
    for name, count in (("workers", workers), ("threads", threads)):
        if count is not None and count < 1:
            raise UserError(f"--{name} must be >= 1, not {count}")


def finish_removal(outcomes: Iterable[Outcome], output: Path) -> None:
    """Remove the checkpoints of finished cells; a killed grid may not have removed them."""
    for outcome in outcomes:
        if outcome.status == FINISHED:
            remove_checkpoints(outcome.cell.folder(output))


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make a grid's folder, and lock it against other grids.

    Raises:
        UserError: if another grid has locked it, or it cannot be written.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / ".lock", 0))
        except LockHeldError:
            busy = f"another grid is writing to '{folder}'"
            raise UserError(f"{busy}; wait for it, or give another --output") from None
        except OSError as error:
            reason = f"--output '{folder}' cannot be written: {error.strerror}"
            raise UserError(f"{reason}; give another folder") from error
        yield


def check_data(cells: Sequence[Cell]) -> None:
    """Raise `UserError` if the data of a cell's task is missing."""
    for cell in {cell.task: cell for cell in cells}.values():
        run = cell.run_config()
        task_of(run.dataset, TaskOptions.of(run)).sources(data_folder(run.data_dir))


def _check_settings(cell: Cell, stored: Sequence[Outcome], output: Path) -> None:
    """Refuse cells of other settings: in the same column of a table, or of the same name."""
    for other in (outcome.cell for outcome in stored):
        if other.task == cell.task:
            check_equal(cell.base, other.base, f"'{output}' holds cells on {cell.task}")
        if other.key == cell.key:
            settings = effective(cell.settings), effective(other.settings)
            check_equal(*settings, f"'{output}' holds {cell}")


def check_equal(wanted: dict[str, Any], stored: dict[str, Any], where: str) -> None:
    """Raise `UserError` naming the settings that differ from those stored, if any do.

    A setting that one of them lacks has its default there. Earlier versions lack new settings.
    """
    defaults = asdict(RunConfig())
    wanted, stored = {**defaults, **wanted}, {**defaults, **stored}
    names = sorted(n for n in {*wanted, *stored} if wanted.get(n) != stored.get(n))
    if names:
        differing = ", ".join(f"{n} {stored.get(n)} (now {wanted.get(n)})" for n in names)
        raise UserError(f"{where} with {differing}; give another --output")


def check_failed(outcomes: Sequence[Outcome]) -> None:
    """Raise `CellsFailedError` naming the first cell that failed, if any did."""
    failed = [outcome for outcome in outcomes if outcome.status == FAILED]
    if failed:
        raise CellsFailedError(
            f"{len(failed)} of {len(outcomes)} cells failed, the first, {failed[0].cell}: "
            f"{failed[0].reason}; the same command tries them again"
        )
