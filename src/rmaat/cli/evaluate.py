"""Measure a finished run on the test part of its task."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat evaluate`."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a finished run")
    parser.add_argument(
        "--data_dir",
        type=str | None,
        default=None,
        help="data folder (default: the run's)",
    )


def run(arguments: Namespace) -> None:
    """Evaluate the run and print its test accuracy and loss."""
    from rmaat.cli.progress import count_bar
    from rmaat.cli.quiet import hide_progress_of_transformers
    from rmaat.training.finished_run import open_run
    from rmaat.training.run import evaluate

    hide_progress_of_transformers()
    metrics = evaluate(open_run(arguments.model), arguments.data_dir, count_bar)
    accuracy, examples = metrics["test_accuracy"], metrics["test_examples"]
    print(f"test accuracy            {100 * accuracy:6.2f}%   ({examples} examples)")
    print(f"always commonest class   {100 * metrics['test_majority_accuracy']:6.2f}%")
    print(f"test loss                {metrics['test_loss']:7.4f}")
