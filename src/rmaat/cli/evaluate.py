"""Measure a finished run on the test part of its task, or on another file."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import printable


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
        help="another file of the same columns, for a run of the task files (default: the run's)",
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
        help="folder for evaluation.json, confusion.png and reliability.png; made if missing",
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
    print_measurements(metrics)
    if arguments.output is not None:
        paths = [arguments.output / "evaluation.json", *draw_evaluation(metrics, arguments.output)]
        write_json(paths[0], metrics)
        print()
        print(f"files                    {', '.join(map(str, paths))}")


def print_measurements(metrics: Mapping[str, Any]) -> None:
    """Print the measurements of the test part, and a table with a row for each class."""
    from rich.table import Table

    from rmaat.terminal import console

    accuracy, examples = metrics["test_accuracy"], metrics["test_examples"]
    print(f"test accuracy            {100 * accuracy:6.2f}%   ({examples} examples)")
    print(f"always commonest class   {100 * metrics['test_majority_accuracy']:6.2f}%")
    print(f"macro F1                 {100 * metrics['test_f1_macro']:6.2f}%")
    area = metrics["test_auc"]
    print(f"area under ROC curve     {'unknown: a class has no example' if area is None else f'{area:7.4f}'}")
    print(f"test loss                {metrics['test_loss']:7.4f}")
    print(f"calibration error        {metrics['test_calibration_error']:7.4f}")
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for heading in ("precision", "recall", "F1", "examples"):
        table.add_column(heading, justify="right")
    for name, scores in metrics["test_classes"].items():
        shares = (f"{100 * scores[key]:.2f}%" for key in ("precision", "recall", "f1"))
        table.add_row(printable(name), *shares, f"{scores['support']:,}")
    print()
    console().print(table)
