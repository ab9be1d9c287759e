"""Show which segments of a text decided its label or number."""

from itertools import islice
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import UserError, printable

PASSAGE = 48
"""Most characters of a passage in the table."""

FILES = ("explanation.json", "explanation.png")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat explain`."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("file", nargs="?", default="-", help="UTF-8 text file; none or '-' means standard input")
    parser.add_argument("--passages", type=int, default=3, help="number of decisive passages to print in full")
    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help=f"folder for {FILES[0]} (all segments and outputs) and {FILES[1]} (figure)",
    )


def run(arguments: Namespace) -> None:
    """Print a table of segments, and the passages that changed the output most."""
    from rmaat.training.run_folder import check_is_run

    # Before the imports below, which take seconds.
    check_is_run(arguments.model)
    from rich.table import Table

    from rmaat.cli.folders import writable_folder
    from rmaat.machine.files import write_json
    from rmaat.tasks.inputs import read_inputs
    from rmaat.terminal import console
    from rmaat.training.explanation import draw_explanation, explain
    from rmaat.training.finished_run import open_classifier
    from rmaat.training.run import device

    if arguments.passages < 0:
        raise UserError(f"passages must be at least 0, got {arguments.passages}")
    output = None if arguments.output is None else writable_folder(arguments.output)
    finished = open_classifier(arguments.model)
    finished.model.to(device())
    examples = list(islice(read_inputs([arguments.file], finished.source.info, ["text"]), 2))
    if not examples:
        raise UserError(f"{arguments.file} has no text")
    if len(examples) > 1 or examples[0].is_row:
        raise UserError(f"{arguments.file}: explain reads one text file, not a folder or a file of records")
    (example,) = examples
    try:
        if example.problem is not None:
            raise UserError(example.problem)
        explanation = explain(finished, example.texts[0])
    except UserError as error:
        raise UserError(f"{example.name}: {error}") from error
    name = example.name
    terminal = console()
    problem, label = explanation.problem, printable(explanation.label)
    terminal.print(f"{printable(name)}: {label}, {problem.shown(explanation.output)}")
    heading = f"{label}{problem.explained_unit}"
    table = Table("segment", heading, "change", "beginning", box=None, pad_edge=False)
    for number, segment in enumerate(explanation.segments, 1):
        shown = problem.shown(segment.outputs[explanation.index]).removesuffix("%")
        passage = printable(" ".join(segment.text.split()))[:PASSAGE]
        table.add_row(f"{number}", shown, problem.shown_change(segment.change), passage)
    terminal.print(table)
    for index in explanation.most_decisive(arguments.passages):
        segment = explanation.segments[index]
        terminal.print(f"\nsegment {index + 1}, {problem.shown_change(segment.change)}{problem.change_unit}:")
        terminal.print(printable(" ".join(segment.text.split())))
    if output is not None:
        write_json(output / FILES[0], explanation.record())
        draw_explanation(explanation, f"{name}: {explanation.label}", output / FILES[1])
        terminal.print(f"\n{output / FILES[0]}\n{output / FILES[1]}")
