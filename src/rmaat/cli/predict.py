"""Label texts, records or pictures with a finished run, and print or write the predictions.

One bad input is reported, and the others are predicted. The exit status is then 2.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import ERROR_PREFIX, UserError, one_line, printable

if TYPE_CHECKING:
    from rmaat.training.finished_run import FinishedRun
    from rmaat.training.inference import Outcome
    from rmaat.training.problems import Prediction, Problem

Writer = Callable[[str, "Prediction"], None]
"""A function to call with the name of each example and its prediction."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat predict`."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a finished run")
    parser.add_argument(
        "inputs",
        nargs="*",
        help="text files, folders, .jsonl, .csv, .tsv, .parquet, or pictures; none or '-' means standard input",
    )
    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help=".jsonl or .csv file for the probabilities of all labels, or the numbers (default: standard output)",
    )
    parser.add_argument(
        "--text_column",
        type=str | None,
        default=None,
        help="column of the text in records (default: the run's, else 'text')",
    )
    parser.add_argument(
        "--other_text_column",
        type=str | None,
        default=None,
        help="column of the second text, for pairs (default: the run's)",
    )
    parser.add_argument(
        "--skip_bad_rows",
        type=bool,
        default=False,
        help="count malformed rows of records instead of reporting each",
    )
    parser.add_argument(
        "--truncate",
        type=bool,
        default=False,
        help="truncate texts as in training instead of reading them whole",
    )
    parser.add_argument(
        "--per_device_eval_batch_size",
        type=int | None,
        default=None,
        help="most texts of a batch (default: the run's)",
    )


def run(arguments: Namespace) -> None:
    """Print name and prediction of each example, separated by tabs, or write the output.

    A prediction is a label and its probability, several of them, or a number.

    Raises:
        UserError: for a mistake in the flags, before any prediction; and at the end, if an input
            had no prediction.
    """
    inputs = arguments.inputs or ["-"]
    output: Path | None = arguments.output
    if output is not None:
        _check_output(output, inputs)
    size = arguments.per_device_eval_batch_size
    if size is not None and size < 1:
        raise UserError(f"--per_device_eval_batch_size must be at least 1, got {size}")
    from rmaat.training.run_folder import check_is_run

    # Before the imports below, which take seconds.
    check_is_run(arguments.model)
    from rmaat.cli.progress import count_bar
    from rmaat.tasks.base import no_bar
    from rmaat.tasks.inputs import read_inputs
    from rmaat.training.finished_run import open_classifier
    from rmaat.training.inference import predict_many
    from rmaat.training.run import device

    finished = open_classifier(arguments.model)
    finished.model.to(device())
    info = finished.source.info
    columns = _columns(finished, arguments.text_column, arguments.other_text_column)
    examples = read_inputs(inputs, info, columns, None if output is None else output.resolve())
    outcomes = predict_many(finished, examples, truncate=arguments.truncate, batch_size=size)
    counts = _Counts()
    # Lines on standard output show the progress themselves.
    bar = no_bar if output is None else count_bar
    with _writer(output, finished) as write, bar("predicting", None) as progress:
        for outcome in outcomes:
            counts.add(outcome, arguments.skip_bad_rows)
            if outcome.prediction is not None:
                write(outcome.name, outcome.prediction)
            progress(1)
    counts.report(_limit(finished, arguments.truncate))


class _Counts:
    """The numbers of examples, by outcome; bad ones are reported when they are counted."""

    def __init__(self) -> None:
        self.total = 0
        self.failed = 0
        self.skipped = 0
        self.truncated = 0

    def add(self, outcome: Outcome, skip_bad_rows: bool) -> None:
        """Count an example, and print a line about one without a prediction."""
        if outcome.prediction is None and outcome.is_row and skip_bad_rows:
            self.skipped += 1
            return
        self.total += 1
        if outcome.prediction is None:
            self.failed += 1
            print(one_line(f"{ERROR_PREFIX}{outcome.name}: {outcome.problem}"), file=sys.stderr)
        elif outcome.prediction.truncated:
            self.truncated += 1

    def report(self, limit: str) -> None:
        """Print notes about skipped rows and truncated texts.

        Args:
            limit: the length of truncated texts, and the reason.

        Raises:
            UserError: if an input had no prediction.
        """
        if self.skipped:
            print(f"note: skipped {self.skipped:,} malformed rows", file=sys.stderr)
        if self.truncated:
            print(f"note: {self.truncated:,} of {self.total:,} inputs were truncated to {limit}", file=sys.stderr)
        if self.failed:
            raise UserError(f"{self.failed:,} of {self.total:,} inputs had no prediction")


def _limit(finished: FinishedRun, truncate: bool) -> str:
    """Return the length of truncated texts and the reason, for a note."""
    text = "each text, " if finished.source.info.pair else ""
    reason = "as in training" if truncate else "because the model reads no more"
    if not truncate and finished.config.num_segments == 1:
        reason += ": it was trained with one segment, and with two or more it reads any length"
    return f"{finished.source.sequence_limit:,} tokens, {text}{reason}"


def _columns(finished: FinishedRun, text_column: str | None, other_text_column: str | None) -> tuple[str, ...]:
    """Return the columns of the texts in records: those of the flags, else the run's."""
    pair = finished.source.info.pair
    if other_text_column is not None and not pair:
        raise UserError(f"--other_text_column: an example of {finished.config.dataset} is one text; leave it out")
    first = text_column or finished.config.text_column or "text"
    second = other_text_column or finished.config.other_text_column
    return (first, second) if pair and second is not None else (first,)


def _check_output(output: Path, inputs: Sequence[str]) -> None:
    """Raise `UserError` if the output has another suffix, is an input, or cannot be written."""
    if output.suffix not in WRITERS:
        raise UserError(f"--output {output}: the name must end in {' or '.join(WRITERS)}")
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; give the path of a file")
    if any(Path(item).resolve() == output.resolve() for item in inputs if item != "-"):
        raise UserError(f"--output {output} is an input too; give another path")
    from rmaat.cli.folders import writable_folder

    writable_folder(output.parent)


@contextmanager
def _writer(output: Path | None, finished: FinishedRun) -> Iterator[Writer]:
    """Open the output for predictions; a file takes its place at the end, whole."""
    if output is None:
        yield _print
        return
    from rmaat.machine.files import replacing

    with (
        replacing(output) as file,
        # File names that are not UTF-8 hold lone surrogates, which become escapes.
        io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="") as text,
    ):
        yield WRITERS[output.suffix](text, finished.source.problem, finished.source.info.label_names)


def _print(name: str, prediction: Prediction) -> None:
    print("\t".join((printable(name), *prediction.fields())))


def _jsonl_writer(file: io.TextIOWrapper, problem: Problem, labels: Sequence[str]) -> Writer:
    def write(name: str, prediction: Prediction) -> None:
        row = {"name": name, **prediction.record(labels)}
        file.write(json.dumps(row, ensure_ascii=False) + "\n")

    return write


def _csv_writer(file: io.TextIOWrapper, problem: Problem, labels: Sequence[str]) -> Writer:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["name", *problem.columns(labels)])

    def write(name: str, prediction: Prediction) -> None:
        rows.writerow([name, *prediction.cells()])

    return write


WRITERS = {".jsonl": _jsonl_writer, ".csv": _csv_writer}
"""The writer of each suffix of the output."""
