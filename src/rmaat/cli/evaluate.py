"""Measure a finished run on the test part of its task, or on another file."""

import sys
from pathlib import Path

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


def run(arguments: Namespace) -> None:
    """Evaluate the run and print its test accuracy and loss."""
    from rmaat.cli.progress import count_bar
    from rmaat.cli.quiet import hide_progress_of_transformers
    from rmaat.training.finished_run import open_run
    from rmaat.training.run import evaluate

    hide_progress_of_transformers()
    finished = open_run(arguments.model).with_test_file(arguments.test_file, arguments.skip_bad_rows)
    metrics = evaluate(finished, arguments.data_dir, count_bar)
    for note in metrics["test_notes"]:
        print(printable(f"note: test: {note}"), file=sys.stderr)
    accuracy, examples = metrics["test_accuracy"], metrics["test_examples"]
    print(f"test accuracy            {100 * accuracy:6.2f}%   ({examples} examples)")
    print(f"always commonest class   {100 * metrics['test_majority_accuracy']:6.2f}%")
    print(f"test loss                {metrics['test_loss']:7.4f}")
