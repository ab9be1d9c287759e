"""Measure a finished run on the test part of its task."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """The run's folder, and where the data is now."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a finished run")
    parser.add_argument(
        "--data_dir", type=str | None, default=None, help="folder of the data; the run's own by default"
    )


def run(arguments: Namespace) -> None:
    """Print accuracy and loss."""
    from rmaat.cli.progress import count_bar
    from rmaat.cli.quiet import hide_progress_of_transformers
    from rmaat.training.finished import open_run
    from rmaat.training.run import evaluate

    hide_progress_of_transformers()
    found = evaluate(open_run(arguments.model), arguments.data_dir, count_bar)
    print(f"test accuracy            {100 * found['test_accuracy']:6.2f}%   ({found['test_examples']} examples)")
    print(f"always the commonest     {100 * found['test_majority_accuracy']:6.2f}%")
    print(f"test loss                {found['test_loss']:7.4f}")
