"""The progress of a grid: a line an event, and in a terminal a bar for each running cell."""

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from rmaat.grid.cells import Cell, Key
from rmaat.grid.outcomes import FINISHED, Outcome
from rmaat.grid.process import steps_of


class Board:
    """Bars of the running cells by their steps, and one of all cells by those that have ended."""

    def __init__(self, total: int, ended: int, console: Console) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self._all = self._bars.add_task("all cells", completed=ended, total=total)
        self._running: dict[Key, tuple[TaskID, Path, float]] = {}
        self._ended, self._total = ended, total

    def __enter__(self) -> "Board":
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def started(self, cell: Cell, folder: Path) -> None:
        """Show a cell that runs in this folder."""
        bar = self._bars.add_task(str(cell), total=None)
        self._running[cell.key] = bar, folder, time.monotonic()
        self._bars.console.print(f"{cell} started")

    def tick(self) -> None:
        """Show the steps that the running cells have done."""
        for bar, folder, _ in self._running.values():
            if steps := steps_of(folder):
                self._bars.update(bar, completed=steps[0], total=steps[1])

    def ended(self, outcome: Outcome) -> None:
        """Show an outcome."""
        bar, _, began = self._running.pop(outcome.cell.key)
        self._ended += 1
        self._bars.remove_task(bar)
        self._bars.update(self._all, completed=self._ended)
        text = f"{outcome.status}: {outcome.reason}"
        if outcome.status == FINISHED:
            text = f"test accuracy {100 * outcome.metrics['test_accuracy']:.2f}%"
        line = f"[{self._ended}/{self._total}] {outcome.cell}: {text}"
        minutes = (time.monotonic() - began) / 60
        self._bars.console.print(f"{line}, after {minutes:.1f} min")
