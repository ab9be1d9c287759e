"""Measure a finished run on the test part of its task, or on another file."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import printable

if TYPE_CHECKING:
    from rmaat.training.problems import Problem


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat evaluate`."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a finished run")
    parser.add_argument(
        "--data_dir",
        type=str | None,
        default=None,
        help="data folder (default: the run's)",
    )
    parser.add_argument(
        "--test_file",
        type=str | None,
        default=None,
        help="another file of the same columns, or folder, for a run of the task files (default: the run's)",
    )
    parser.add_argument(
        "--skip_bad_rows",
        type=bool | None,
        default=None,
        help="skip and count malformed rows of the test file (default: the run's)",
    )
    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="folder for evaluation.json and the figures; made if missing",
    )


def run(arguments: Namespace) -> None:
    """Evaluate the run, print its measurements, and write them with their figures to `--output`."""
    from rmaat.cli.folders import writable_folder
    from rmaat.cli.progress import count_bar
    from rmaat.machine.files import write_json
    from rmaat.training.evaluation_figures import draw_evaluation
    from rmaat.training.finished_run import open_run
    from rmaat.training.run import evaluate

    finished = open_run(arguments.model).with_test_file(arguments.test_file, arguments.skip_bad_rows)
    if arguments.output is not None:
        writable_folder(arguments.output)
    metrics = evaluate(finished, arguments.data_dir, count_bar)
    for note in metrics["test_notes"]:
        print(printable(f"note: test: {note}"), file=sys.stderr)
    problem = finished.source.problem
    print_measurements(metrics, problem)
    if arguments.output is not None:
        paths = [arguments.output / "evaluation.json", *draw_evaluation(metrics, problem, arguments.output)]
        write_json(paths[0], metrics)
        print()
        print(f"files                    {', '.join(map(str, paths))}")


def print_measurements(metrics: Mapping[str, Any], problem: "Problem") -> None:
    """Print the measurements of the test part, and a table with a row for each class."""
    from rmaat.terminal import console

    (name, value), *rows = problem.rows(metrics)
    print(f"{name:<25}{value}   ({metrics['test_examples']} examples)")
    rows.append(("test loss", f"{metrics['test_loss']:7.4f}"))
    if "test_calibration_error" in metrics:
        rows.append(("calibration error", f"{metrics['test_calibration_error']:7.4f}"))
    for name, value in rows:
        print(f"{name:<25}{value}")
    if (table := problem.table(metrics)) is not None:
        print()
        console().print(table)
