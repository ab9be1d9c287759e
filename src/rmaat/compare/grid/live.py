"""What a person sees while a grid runs: a table that fills, or a line an event where there is no terminal."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from rmaat.compare.grid.cells import Key
from rmaat.compare.grid.process import Job, steps_of
from rmaat.compare.grid.results import FINISHED, Record


class Board:
    """One row a model, one column a task, and in each field its seeds in their order: a dot while it waits, steps while it runs,
    then the test accuracy in percent or why there is none. A `rmaat.compare.grid.scheduler.Watcher`.
    """

    def __init__(self, jobs: Sequence[Job], finished: Sequence[Record], console: Console) -> None:
        self._jobs = {job.cell.key: job for job in jobs}
        self._records = {record.key: record for record in finished if record.key in self._jobs}
        self._begun: dict[Key, float] = {}
        self._console = console
        self._live = Live(console=console, auto_refresh=False, get_renderable=self.table)

    def __enter__(self) -> "Board":
        if self._console.is_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.refresh()
            self._live.stop()

    def started(self, job: Job) -> None:
        """Note when."""
        self._begun[job.cell.key] = time.monotonic()
        self._say(f"{job.cell} started")

    def ended(self, job: Job, record: Record) -> None:
        """Show what became of it."""
        self._records[record.key] = record
        minutes = (time.monotonic() - self._begun[record.key]) / 60
        told = (
            f"test accuracy {_outcome(record)}%" if record.status == FINISHED else f"{record.status}: {record.reason}"
        )
        self._say(f"[{len(self._records)}/{len(self._jobs)}] {job.cell}: {told}, after {minutes:.1f} min")

    def tick(self) -> None:
        """Draw anew."""
        if self._console.is_terminal:
            self._live.refresh()

    def table(self) -> Table:
        """The table as it stands."""
        tasks = dict.fromkeys(task for task, _, _ in self._jobs)
        models = dict.fromkeys(model for _, model, _ in self._jobs)
        seeds = dict.fromkeys(seed for _, _, seed in self._jobs)
        table = Table("model", *tasks, box=None)
        for model in models:
            fields = [
                " | ".join(self._field((task, model, seed)) for seed in seeds if (task, model, seed) in self._jobs)
                for task in tasks
            ]
            table.add_row(model, *fields)
        return table

    def _field(self, key: Key) -> str:
        if key in self._records:
            return _outcome(self._records[key])
        if key not in self._begun:
            return "·"
        steps = steps_of(self._jobs[key].folder)
        return f"{steps[0]:,} of {steps[1]:,}" if steps else "starting"

    def _say(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.print(line)


def _outcome(record: Record) -> str:
    return f"{100 * record.values['test_accuracy']:.2f}" if record.status == FINISHED else record.status
