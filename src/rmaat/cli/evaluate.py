"""Measure a finished run on the test part of its task, or on another file."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import UserError, printable

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
    from rmaat.training.run_folder import check_is_run

    # Before the imports below, which take seconds.
    check_is_run(arguments.model)
    if is_language_run(arguments.model):
        _evaluate_language(arguments)
        return
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


def is_language_run(folder: Path) -> bool:
    """Return whether a folder has a run whose objective is 'causal'."""
    from rmaat.training.config import RunConfig
    from rmaat.training.run_folder import RUN_CONFIG

    return RunConfig.from_yaml(folder / RUN_CONFIG).objective == "causal"


def _evaluate_language(arguments: Namespace) -> None:
    from rich.table import Table

    from rmaat.cli.folders import writable_folder
    from rmaat.machine.files import write_json
    from rmaat.machine.provenance import provenance
    from rmaat.tasks.inputs import read_inputs
    from rmaat.terminal import console
    from rmaat.training.language import open_language_run, score_texts
    from rmaat.training.run import device

    if arguments.test_file is None:
        raise UserError("a language model is evaluated on texts: give --test_file, a file or a folder")
    output = None if arguments.output is None else writable_folder(arguments.output)
    language = open_language_run(arguments.model)
    language.model.to(device())
    examples = list(read_inputs([arguments.test_file], language.task.info, ["text"]))
    for example in examples:
        if example.problem is not None:
            raise UserError(f"{example.name}: {example.problem}")
    if not examples:
        raise UserError(f"{arguments.test_file} has no text")
    record = score_texts(language, (example.texts[0] for example in examples)).record()
    print(
        f"bits per byte            {record['bits_per_byte']:7.4f}   ({record['texts']} texts, {record['bytes']:,} bytes)"
    )
    print(f"perplexity               {record['perplexity']:7.4f}   (of a token)")
    print()
    table = Table("tokens of a text", "bits per byte", "tokens read", box=None, pad_edge=False)
    for place in record["by_place"]:
        span = f"{place['first']:,} to {place['last']:,}"
        table.add_row(span, f"{place['bits_per_byte']:.4f}", f"{place['tokens']:,}")
    console().print(table)
    if output is not None:
        path = output / "evaluation.json"
        write_json(path, {**provenance(), **record})
        print(f"\nfiles                    {path}")


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
