"""What a person sees of long work on standard error: a bar on a terminal; elsewhere nothing, or lines for named pieces."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn

    from rmaat.tasks.base import Progress


@contextmanager
def count_bar(description: str, total: int | None) -> Iterator[Progress]:
    """Show a `rmaat.tasks.base.ProgressBar` of items; it pulses if the total is not known."""
    from rich.progress import MofNCompleteColumn

    with _progress(MofNCompleteColumn()) as shown:
        row = shown.add_task(description, total=total)
        yield lambda done: shown.advance(row, done)


@contextmanager
def bytes_bar(description: str, total: int | None) -> Iterator[Progress]:
    """Show a `rmaat.tasks.base.ProgressBar` of bytes; it pulses if the total is not known."""
    from rich.progress import DownloadColumn

    with _progress(DownloadColumn()) as shown:
        row = shown.add_task(description, total=total)
        yield lambda done: shown.advance(row, done)


@contextmanager
def named_bar(total: int) -> Iterator[Callable[[str], None]]:
    """Give a function to call with the name of each piece of work as it begins.

    A terminal shows the pieces as a bar. Elsewhere each has a line: its name as it begins, its seconds as it ends.
    """
    from rich.progress import MofNCompleteColumn

    if not _console().is_terminal:
        lines = _PieceLines()
        try:
            yield lines.begin
        except BaseException:
            # What is printed about the failure begins a line of its own.
            print(file=sys.stderr)
            raise
        lines.end()
        return
    with _progress(MofNCompleteColumn()) as shown:
        row = shown.add_task("starting", total=total)
        begun = itertools.count()
        yield lambda what: shown.update(row, description=what, completed=next(begun))


class _PieceLines:
    """One line a piece of work, on standard error; a piece that was interrupted has no seconds."""

    def __init__(self) -> None:
        self._started: float | None = None

    def begin(self, what: str) -> None:
        """End the piece before, and print the name of this one."""
        self.end()
        print(f"{what} ...", end="", file=sys.stderr, flush=True)
        self._started = time.perf_counter()

    def end(self) -> None:
        """Print the seconds of the piece that was begun, if one was."""
        if self._started is not None:
            print(f" {time.perf_counter() - self._started:.1f} s", file=sys.stderr, flush=True)
            self._started = None


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _progress(amount: ProgressColumn) -> RichProgress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn()
    console = _console()
    # Elsewhere rich would still end a line that it has not begun.
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
