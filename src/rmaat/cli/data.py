"""Generate the data of a task, or check the files of a task that is not generated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import UserError
from rmaat.tasks import TASKS, Task, data_folder, load
from rmaat.tasks.base import Counts, GeneratedTask

if TYPE_CHECKING:
    from rich.console import Console

COUNT_FLAGS = ("num_train", "num_val", "num_test")

MOST_FILES_LISTED = 10
"""Beyond this many files, one checksum over all of them is printed."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat data`."""
    parser.add_argument("task", type=str, help=f"one of: {', '.join(TASKS.names())}")
    parser.add_argument("--data_dir", type=str | None, help="data folder (default: $RMAAT_DATA, else datasets/)")
    parser.add_argument("--seed", type=int, default=0, help="what a generated task is drawn from")
    for flag, part in zip(COUNT_FLAGS, ("train", "validation", "test"), strict=True):
        parser.add_argument(f"--{flag}", type=int | None, help=f"{part} examples to generate (default: the task's own)")
    parser.add_argument("--overwrite", type=bool, default=False, help="replace generated files of other settings")
    parser.add_argument("--show", type=int, default=0, help="print this many examples of the train part")


def run(arguments: Namespace) -> None:
    """Generate or check, then tell what is there."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    task = TASKS[arguments.task]
    data_dir = data_folder(arguments.data_dir)
    if arguments.seed < 0:
        raise UserError(f"--seed must not be negative, got {arguments.seed}")
    if arguments.show < 0:
        raise UserError(f"--show must not be negative, got {arguments.show}")
    asked = [arguments[flag] for flag in COUNT_FLAGS]
    if isinstance(task, GeneratedTask):
        train, validation, test = (
            default if count is None else count for count, default in zip(asked, task.info.sizes, strict=True)
        )
        _generate(console, task, data_dir, arguments.seed, Counts(train, validation, test), arguments.overwrite)
    elif any(count is not None for count in asked):
        raise UserError(f"--num_train, --num_val and --num_test are for generated tasks; {task.info.name} reads files")
    _report_files(console, task.sources(data_dir))
    if arguments.show:
        _show(console, task, data_dir, arguments.show)


def _generate(
    console: Console, task: GeneratedTask, data_dir: Path, seed: int, counts: Counts, overwrite: bool
) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from rmaat.tasks.generate import generate

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task(f"generating {task.info.name}", total=counts.total())
        made = generate(task, data_dir, seed, counts, overwrite, progress=lambda done: bar.advance(row, done))
    parts = f"{counts.train:,} / {counts.validation:,} / {counts.test:,}"
    console.print(f"{task.info.name}: {parts} examples from seed {seed}, {'generated' if made else 'there already'}")


def _report_files(console: Console, sources: tuple[Path, ...]) -> None:
    from rmaat.tasks.cache import checksum, file_checksum

    if len(sources) > MOST_FILES_LISTED:
        total = sum(path.stat().st_size for path in sources)
        console.print(f"{sources[0]} and {len(sources) - 1:,} more  {total:,} bytes  sha256 of all {checksum(sources)}")
        return
    for path in sources:
        console.print(f"{path}  {path.stat().st_size:,} bytes  sha256 {file_checksum(path)}")


def _show(console: Console, task: Task, data_dir: Path, count: int) -> None:
    dataset = load(task.info.name, data_dir)["train"]
    for example in dataset.select(range(min(count, len(dataset)))):
        text = " ".join(task.decode(example["input_ids"]).split())
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        label = task.info.label_names[example["labels"]]
        console.print(f"{label}  ({len(example['input_ids']):,} tokens)  {shown}")
