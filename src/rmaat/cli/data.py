"""Generate or download the data of a task, or check existing files, and show their contents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from rmaat.cli.progress import bytes_bar, count_bar
from rmaat.errors import UserError, printable
from rmaat.tasks import TASKS, Task, data_folder, load, task_of
from rmaat.tasks.base import Counts, GeneratedTask
from rmaat.tasks.options import TaskOptions
from rmaat.terminal import console

if TYPE_CHECKING:
    from datasets import DatasetDict
    from rich.console import Console

COUNT_FLAGS = ("num_train", "num_val", "num_test")

MOST_FILES_LISTED = 10
"""Largest number of files with a line each; more files get one checksum over all of them."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat data`."""
    parser.add_argument("task", type=str, help=f"one of: {', '.join(TASKS.names())}")
    parser.add_argument(
        "--data_dir",
        type=str | None,
        help="data folder (default: $RMAAT_DATA, else datasets/)",
    )
    parser.add_argument(
        "--seed",
        type=int | None,
        help="seed of generated data, or of the split into train and validation (default: 0)",
    )
    for flag, part in zip(COUNT_FLAGS, ("train", "validation", "test"), strict=True):
        parser.add_argument(
            f"--{flag}",
            type=int | None,
            help=f"{part} examples to generate (default: the task's number)",
        )
    parser.add_argument(
        "--overwrite",
        type=bool,
        default=False,
        help="overwrite generated files of other settings",
    )
    parser.add_argument(
        "--show",
        type=int,
        default=0,
        help="print this many examples of the train part",
    )
    parser.add_argument(
        "--download",
        type=bool,
        default=False,
        help="download the published archive into the data folder",
    )
    parser.add_argument("--url", type=str | None, help="address of a mirror of the archive, for --download")
    parser.add_class_arguments(TaskOptions)


def run(arguments: Namespace) -> None:
    """Generate, download or check the data, then print its files and number of examples."""
    output = console()
    task = task_of(arguments.task, TaskOptions.of(arguments))
    data_dir = data_folder(arguments.data_dir)
    if arguments.seed is not None and arguments.seed < 0:
        raise UserError(f"--seed must not be negative, got {arguments.seed}")
    if arguments.show < 0:
        raise UserError(f"--show must not be negative, got {arguments.show}")
    if arguments.url is not None and not arguments.download:
        raise UserError("--url has no effect without --download; give both or neither")
    seed = arguments.seed or 0
    counts = [arguments[flag] for flag in COUNT_FLAGS]
    # Without these flags, existing files are read whatever their settings are.
    has_settings = arguments.overwrite or any(x is not None for x in (arguments.seed, *counts))
    generated = False
    if arguments.download:
        _download(output, task, data_dir, arguments.url)
    elif isinstance(task, GeneratedTask):
        if has_settings or not task.is_there(data_dir):
            pairs = zip(counts, task.info.sizes, strict=True)
            resolved = Counts(*(default if count is None else count for count, default in pairs))
            generated = _generate(task, data_dir, seed, resolved, arguments.overwrite)
        else:
            _check_undamaged(task, data_dir)
    elif any(count is not None for count in counts):
        raise UserError(f"--num_train, --num_val and --num_test are for generated tasks; {task.info.name} reads files")
    # Read all examples before printing anything, because existing files may be damaged.
    dataset = load(task, data_dir, seed, bar=count_bar)
    examples = " / ".join(f"{len(part):,}" for part in dataset.values())
    output.print(f"{task.info.name}: {examples} examples{_origin(task, data_dir, generated)}")
    _report_files(output, task.sources(data_dir), data_dir)
    from rmaat.tasks.files import FilesTask
    from rmaat.tasks.statistics import dataset_statistics, print_statistics

    if arguments.show or isinstance(task, FilesTask):
        # A training of one's own files cuts them at a length of its own.
        print_statistics(dataset_statistics(dataset), output, task.unit, not isinstance(task, FilesTask))
    if arguments.show:
        _show(output, task, data_dir, dataset, arguments.show)


def _origin(task: Task, data_dir: Path, generated: bool) -> str:
    if not isinstance(task, GeneratedTask):
        return ""
    from rmaat.tasks.generate import made_from

    settings = made_from(task, data_dir)
    seed = f" from seed {settings['seed']}" if settings else ""
    return f"{seed}, {'generated' if generated else 'there already'}"


def _generate(task: GeneratedTask, data_dir: Path, seed: int, counts: Counts, overwrite: bool) -> bool:
    from rmaat.tasks.generate import generate

    with count_bar(f"generating {task.info.name}", counts.total()) as progress:
        return generate(task, data_dir, seed, counts, overwrite, progress=progress)


def _check_undamaged(task: GeneratedTask, data_dir: Path) -> None:
    from rmaat.tasks.generate import check_undamaged

    check_undamaged(task, data_dir, count_bar)


def _download(output: Console, task: Task, data_dir: Path, url: str | None) -> None:
    from rmaat.tasks.download import fetch

    if task.download is None:
        raise UserError(f"{task.info.name} has no published archive; its data: {task.info.source}")
    folder = fetch(task.download, data_dir, bytes_bar, url)
    output.print(f"{task.info.name}: downloaded and unpacked into {folder}")


def _report_files(output: Console, sources: tuple[Path, ...], data_dir: Path) -> None:
    from rmaat.tasks.cache import cache_folder
    from rmaat.tasks.checksums import combined_checksum, remembered_checksums

    checksums = remembered_checksums(sources, cache_folder(data_dir), count_bar)
    if len(sources) > MOST_FILES_LISTED:
        total, combined = sum(path.stat().st_size for path in sources), combined_checksum(checksums)
        output.print(f"{sources[0]} and {len(sources) - 1:,} more  {total:,} bytes  sha256 of all {combined}")
        return
    for path, checksum in zip(sources, checksums, strict=True):
        output.print(f"{path}  {path.stat().st_size:,} bytes  sha256 {checksum}")


def _show(output: Console, task: Task, data_dir: Path, dataset: DatasetDict, count: int) -> None:
    from rmaat.tasks.labels import LABEL_STORAGE

    examples = dataset["train"].select(range(min(count, len(dataset["train"])))).with_format("numpy")[:]
    storage = LABEL_STORAGE[task.info.problem_type]
    labels = [printable(storage.text(label, task.info.label_names)) for label in examples["labels"]]
    if task.info.image_shape is not None:
        from rmaat.tasks.cache import cache_folder
        from rmaat.tasks.images import contact_sheet

        sheet = cache_folder(data_dir) / f"{task.info.name}-examples.png"
        contact_sheet([levels.reshape(task.info.image_shape) for levels in examples["input_ids"]], sheet)
        output.print(f"{sheet}  row by row: {', '.join(labels)}")
        return
    for i, label in enumerate(labels):
        for column in task.info.columns:
            ids = examples[column][i]
            text = printable(" ".join(task.decode(ids).split()))
            output.print(f"{label}  ({len(ids):,} {task.unit})  {text if len(text) <= 200 else f'{text[:200]}...'}")
