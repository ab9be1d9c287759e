"""Train models on few segments, then test their memory on many.

The same command resumes an interrupted comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from rmaat.cli.progress import count_bar, named_bar
from rmaat.errors import UserError, did_you_mean
from rmaat.grid.presets import RECALL, Grid
from rmaat.tasks import data_folder, task_of
from rmaat.tasks.base import Counts
from rmaat.tasks.memory import MemoryTask
from rmaat.tasks.options import MemoryOptions

if TYPE_CHECKING:
    from rmaat.grid.recall import Recall

JSON, FIGURE = "recall.json", "recall.png"

PAIRS = (1, 2, 3, 5, 10, 20, 40, 50)
"""Numbers of pairs in the default tests, for tasks with one pair per segment."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat compare recall`."""
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="folder of the comparison; made if missing",
    )
    parser.add_argument(
        "--task",
        type=str,
        default="recall",
        help=f"one of: {', '.join(RECALL.tasks)}",
    )
    parser.add_argument(
        "--models",
        type=str,
        nargs="*",
        help="names of `rmaat list models`; 'name[key=value,...]' changes settings (default: the "
        "preset's). The preset has rmaat with each retention schedule and four other models.",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=RECALL.seeds,
        help="number of seeds, counted from 0",
    )
    parser.add_argument(
        "--segments",
        type=int,
        nargs="*",
        help="numbers of segments of the tests (default: 1, 2, 4 ... 1024; of pairs, up to 51)",
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=256,
        help="examples of each test; very long ones have fewer",
    )
    parser.add_argument(
        "--max_steps",
        type=int | None,
        help="steps of each training (default: the task's)",
    )
    parser.add_argument(
        "--data_dir",
        type=str | None,
        help="data folder (default: $RMAAT_DATA, else datasets/)",
    )
    parser.add_argument(
        "--device",
        type=str | None,
        help="device of the tests, cpu or cuda (default: cuda if present)",
    )
    parser.add_argument(
        "--workers",
        type=int | None,
        help="trainings at a time (default: number of GPUs; without GPU cores / threads)",
    )
    parser.add_argument(
        "--threads",
        type=int | None,
        help="CPU threads of a training (default: cores / GPUs; 1 without GPU)",
    )
    parser.add_class_arguments(MemoryOptions)


def run(arguments: Namespace) -> None:
    """Train the missing cells, test all, print the tables, and write recall.json and recall.png."""
    from rmaat.cli.compare.common import device_of
    from rmaat.grid.cells import make_cells
    from rmaat.grid.outcomes import DIVERGED, FINISHED
    from rmaat.grid.recall import test_cells
    from rmaat.grid.run import check_failed, run_grid

    if arguments.examples < 1:
        raise UserError(f"--examples must be >= 1, not {arguments.examples}")
    if arguments.task not in RECALL.tasks:
        suggestion = did_you_mean(arguments.task, RECALL.tasks)
        raise UserError(f"unknown --task '{arguments.task}'; {suggestion}")
    device = device_of(arguments.device)
    options = MemoryOptions(**{name: getattr(arguments, name) for name in asdict(MemoryOptions())})
    task = task_of(arguments.task, options)
    assert isinstance(task, MemoryTask)
    segments = test_lengths(task, arguments.segments)
    cells = make_cells(
        grid_of(task, options),
        [arguments.task],
        arguments.models,
        arguments.seeds,
        arguments.data_dir,
        arguments.max_steps,
    )
    make_data(task, data_folder(arguments.data_dir))
    outcomes = run_grid(cells, arguments.output, arguments.workers, arguments.threads)
    finished = [outcome.cell for outcome in outcomes if outcome.status == FINISHED]
    if finished:
        with named_bar(len(finished) * len(segments)) as begin:
            recall = test_cells(finished, arguments.output, segments, arguments.examples, device, begin)
        report(recall, arguments.output)
    for outcome in outcomes:
        if outcome.status == DIVERGED:
            cell = outcome.cell
            print(f"{cell.model} seed {cell.seed}: not tested, because its training diverged")
    check_failed(outcomes)


def grid_of(task: MemoryTask, options: MemoryOptions) -> Grid:
    """Return the preset with the task's segment length and settings."""
    changes = {
        "max_seq_len": task.info.max_seq_len,
        "num_segments": task.info.max_seq_len // (task.segment_tokens * task.info.segments_read_together),
        **{name: value for name, value in asdict(options).items() if value is not None},
    }
    return replace(RECALL, recipes=(task.name,), changes=changes)


def test_lengths(task: MemoryTask, counts: Sequence[int] | None) -> list[int]:
    """Return the numbers of segments to test on, ascending.

    Args:
        task: task of the tests.
        counts: numbers of segments; None means the default ones that the task has examples of.

    Raises:
        UserError: for an empty list, and for a number that the task has no examples of.
    """
    if counts is None:
        # Examples of at least two segments have one pair per segment, then the question.
        defaults = [2**i for i in range(11)]
        if task.segments.start != 1:
            defaults = [pairs + 1 for pairs in PAIRS]
        return [count for count in defaults if _refusal(task, count) is None]
    if not counts:
        raise UserError("--segments needs at least one number")
    for count in counts:
        if refusal := _refusal(task, count):
            raise refusal
    return sorted(set(counts))


def _refusal(task: MemoryTask, segments: int) -> UserError | None:
    """Return the task's error for this number of segments, or None if it has examples."""
    import numpy as np

    try:
        task.draw(np.random.default_rng(0), 1, segments)
    except UserError as refusal:
        return refusal
    return None


def report(recall: Recall, folder: Path) -> None:
    """Print the tables and write recall.json and recall.png."""
    from rmaat.cli.compare.common import print_tables
    from rmaat.grid.recall import accuracy_table, draw_recall, failures, memory_table
    from rmaat.machine.files import write_json

    write_json(folder / JSON, recall.to_json())
    draw_recall(recall, folder / FIGURE)
    remarks = [*failures(recall), f"written to {folder}"]
    print_tables([accuracy_table(recall), memory_table(recall)], remarks)


def make_data(task: MemoryTask, data_dir: Path) -> None:
    """Generate the task's files in their default sizes if they are missing."""
    from rmaat.tasks.generate import generate

    if not task.is_there(data_dir):
        counts = Counts(*task.info.sizes)
        with count_bar(f"generating {task.folder_name}", counts.total()) as progress:
            generate(task, data_dir, 0, counts, progress=progress)
