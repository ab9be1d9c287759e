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
    """Print two lines a task: its facts and whether the data folder has its files, and where they come from."""
    data_dir = data_folder(arguments.data_dir)
    print(f"data folder: {data_dir}; examples of {' / '.join(SPLITS)}\n")
    line = "{:<27}{:>9} {:>8}  {:<25} {}".format
    print(line("name", "length", "classes", "examples", "data"))
    for name in TASKS.names():
        info = TASKS[name].info
        length = f"{'2 x ' if info.pair else ''}{info.max_seq_len:,}"
        classes = str(len(info.label_names) or "yours")
        sizes = " / ".join(f"{size:,}" for size in info.sizes) if any(info.sizes) else "yours"
        print(line(name, length, classes, sizes, "found" if _is_found(TASKS[name], data_dir) else "missing"))
        print(f"    {info.source}")


def _is_found(task: Task, data_dir: Path) -> bool:
    try:
        return bool(task.sources(data_dir))
    except UserError:
        return False
