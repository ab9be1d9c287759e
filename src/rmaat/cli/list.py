"""List what can be named on the command line: the tasks."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import UserError
from rmaat.tasks import TASKS, Task, data_folder
from rmaat.tasks.base import SPLITS


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat list`."""
    parser.add_argument("what", choices=["tasks"], help="what to list")
    parser.add_argument("--data_dir", type=str | None, help="data folder (default: $RMAAT_DATA, else datasets/)")


def run(arguments: Namespace) -> None:
    """Print a table of the tasks, and whether the data folder has their files."""
    from rich.console import Console
    from rich.table import Table

    data_dir = data_folder(arguments.data_dir)
    table = Table(title=f"tasks (data folder: {data_dir})")
    for heading in ("name", "length", "classes", "examples", "source", "data"):
        table.add_column(heading, no_wrap=heading in ("name", "examples"))
    for name in TASKS.names():
        info = TASKS[name].info
        sizes = "\n".join(f"{size:,} {split}" for size, split in zip(info.sizes, SPLITS, strict=True))
        found = "found" if _is_found(TASKS[name], data_dir) else "missing"
        table.add_row(name, f"{info.max_seq_len:,}", str(len(info.label_names)), sizes, info.source, found)
    Console(markup=False).print(table)


def _is_found(task: Task, data_dir: Path) -> bool:
    try:
        return bool(task.sources(data_dir))
    except UserError:
        return False
