"""Progress of long work on standard error.

A terminal shows a bar. Other outputs get nothing from `count_bar` and `bytes_bar`, and one line per
piece of work from `named_bar`.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rmaat.terminal import console

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn

    from rmaat.tasks.base import Progress


@contextmanager
def count_bar(description: str, total: int | None) -> Iterator[Progress]:
    """Show a `rmaat.tasks.base.ProgressBar` of items; it pulses if the total is unknown."""
    from rich.progress import MofNCompleteColumn

    with _progress(MofNCompleteColumn()) as bar:
        row = bar.add_task(description, total=total)
        yield lambda done: bar.advance(row, done)


@contextmanager
def bytes_bar(description: str, total: int | None) -> Iterator[Progress]:
    """Show a `rmaat.tasks.base.ProgressBar` of bytes; it pulses if the total is unknown."""
    from rich.progress import DownloadColumn

    with _progress(DownloadColumn()) as bar:
        row = bar.add_task(description, total=total)
        yield lambda done: bar.advance(row, done)


@contextmanager
def named_bar(total: int) -> Iterator[Callable[[str], None]]:
    """Yield a function to call with the name of each piece of work when it begins.

    A terminal shows the pieces as a bar. Other outputs get a line per piece: its name when it
    begins and its seconds when it ends.
    """
    from rich.progress import MofNCompleteColumn

    if not console(stderr=True).is_terminal:
        lines = _PieceLines()
        try:
            yield lines.begin
        except BaseException:
            # End the unfinished line, so that the error message begins on a new one.
            print(file=sys.stderr)
            raise
        lines.end()
        return
    with _progress(MofNCompleteColumn()) as bar:
        row = bar.add_task("starting", total=total)
        completed = itertools.count()
        yield lambda name: bar.update(row, description=name, completed=next(completed))


class _PieceLines:
    """Lines of the pieces of work on standard error; an interrupted piece has no seconds."""

    def __init__(self) -> None:
        self._started: float | None = None

    def begin(self, name: str) -> None:
        """End the previous piece and print the name of this one."""
        self.end()
        print(f"{name} ...", end="", file=sys.stderr, flush=True)
        self._started = time.perf_counter()

    def end(self) -> None:
        """Print the seconds of the current piece, if there is one."""
        if self._started is not None:
            print(f" {time.perf_counter() - self._started:.1f} s", file=sys.stderr, flush=True)
            self._started = None


def _progress(amount: ProgressColumn) -> RichProgress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), amount, TimeRemainingColumn()
    output = console(stderr=True)
    # Disable rich if the output is no terminal, because it would still print an empty line.
    return Progress(*columns, console=output, transient=True, disable=not output.is_terminal)
