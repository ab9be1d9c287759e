"""What a person sees of long work: a bar on standard error, only where that is a terminal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn

    from rmaat.tasks.base import Progress
    from rmaat.tasks.download import Told


@contextmanager
def count_bar(description: str, total: int | None) -> Iterator[Progress]:
    """A `rmaat.tasks.base.ProgressBar`: counts what is done; runs to and fro where the total is not known."""
    from rich.progress import MofNCompleteColumn

    with _progress(MofNCompleteColumn()) as shown:
        row = shown.add_task(description, total=total)
        yield lambda done: shown.advance(row, done)


@contextmanager
def bytes_bar(description: str) -> Iterator[Told]:
    """Shows bytes; what it gives is told how many have come, and of how many."""
    from rich.progress import DownloadColumn

    with _progress(DownloadColumn()) as shown:
        row = shown.add_task(description, total=None)
        yield lambda done, total: shown.update(row, completed=done, total=total)


@contextmanager
def named_bar(total: int) -> Iterator[Callable[[str], None]]:
    """Counts pieces of work; what it gives is told the name of each as it begins."""
    from rich.progress import MofNCompleteColumn

    with _progress(MofNCompleteColumn()) as shown:
        row = shown.add_task("starting", total=total)
        begun = itertools.count()
        yield lambda what: shown.update(row, description=what, completed=next(begun))


def _progress(amount: ProgressColumn) -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn()
    console = Console(stderr=True)
    # Elsewhere rich would still end a line that it has not begun.
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
