"""Label texts with a finished run and print one line per text."""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import UserError, printable


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat predict`."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a finished run")
    parser.add_argument(
        "files",
        nargs="*",
        help="UTF-8 text files, or pictures for an image task; none or '-' means standard input",
    )


def run(arguments: Namespace) -> None:
    """Print name, label and probability of each text, separated by tabs.

    A run on a pair task takes the files two by two and prints one line per pair.
    """
    names = arguments.files or ["-"]
    import torch

    from rmaat.cli.quiet import hide_progress_of_transformers
    from rmaat.training.finished_run import open_run, predict

    hide_progress_of_transformers()
    finished = open_run(arguments.model)
    finished.model.to("cuda" if torch.cuda.is_available() else "cpu")
    # `predict` opens pictures itself, from their file names.
    read = str if finished.source.info.kind == "image" else _read_text
    size = len(finished.source.info.columns)
    if len(names) % size:
        dataset = finished.config.dataset
        raise UserError(f"a run on {dataset} takes files two by two; got {len(names)} files")
    for start in range(0, len(names), size):
        example = names[start : start + size]
        title = ", ".join(map(_display_name, example))
        try:
            prediction = predict(finished, [read(name) for name in example])
        except UserError as error:
            raise UserError(f"{title}: {error}") from error
        print(f"{printable(title)}\t{printable(prediction.label)}\t{prediction.probability:.4f}")


def _read_text(name: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text: {error.reason} at byte {error.start}") from error


def _display_name(name: str) -> str:
    return "standard input" if name == "-" else name
