"""The progress of a grid: a table that fills, or a line an event if there is no terminal."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from rmaat.grid.cells import Cell, Key
from rmaat.grid.outcomes import FINISHED, Outcome
from rmaat.grid.process import steps_of


class Board:
    """One row a model, one column a task, the seeds side by side in each field.

    A seed is a dot while it waits, its steps while it runs, then its test accuracy in percent or
    its status.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        output: Path,
        outcomes: Sequence[Outcome],
        console: Console,
    ) -> None:
        """`outcomes` are those of the cells that have ended before."""
        self._folders = {cell.key: cell.folder(output) for cell in cells}
        self._outcomes = {outcome.cell.key: outcome for outcome in outcomes}
        self._started: dict[Key, float] = {}
        self._console = console
        self._live = Live(console=console, auto_refresh=False, get_renderable=self.table)

    def __enter__(self) -> "Board":
        if self._console.is_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.tick()
        self._live.stop()

    def started(self, cell: Cell) -> None:
        """Show that a cell runs."""
        self._started[cell.key] = time.monotonic()
        self._print(f"{cell} started")

    def ended(self, outcome: Outcome) -> None:
        """Show an outcome."""
        cell = outcome.cell
        self._outcomes[cell.key] = outcome
        text = f"{outcome.status}: {outcome.reason}"
        if outcome.status == FINISHED:
            text = f"test accuracy {_text(outcome)}%"
        minutes = (time.monotonic() - self._started[cell.key]) / 60
        count = f"[{len(self._outcomes)}/{len(self._folders)}]"
        self._print(f"{count} {cell}: {text}, after {minutes:.1f} min")

    def tick(self) -> None:
        """Draw the table again."""
        if self._console.is_terminal:
            self._live.refresh()

    def table(self) -> Table:
        """Return the table as it stands."""
        tasks, models, seeds = (dict.fromkeys(part) for part in zip(*self._folders, strict=True))
        table = Table("model", *tasks, box=None)
        for model in models:
            keys = [[(task, model, seed) for seed in seeds] for task in tasks]
            table.add_row(model, *(" | ".join(map(self._field, field)) for field in keys))
        return table

    def _field(self, key: Key) -> str:
        if key in self._outcomes:
            return _text(self._outcomes[key])
        if key not in self._started:
            return "·"
        steps = steps_of(self._folders[key])
        return f"{steps[0]:,} of {steps[1]:,}" if steps else "starting"

    def _print(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.print(line)


def _text(outcome: Outcome) -> str:
    if outcome.status == FINISHED:
        return f"{100 * outcome.metrics['test_accuracy']:.2f}"
    return outcome.status
