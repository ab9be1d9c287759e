"""Label texts with a finished run: one line a text, with its label and probability."""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """The run's folder and the files."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("files", nargs="*", help="text files, UTF-8; none or '-' reads standard input")


def run(arguments: Namespace) -> None:
    """Print name, label and probability of each text, tab-separated."""
    names = arguments.files or ["-"]
    texts = [_read(name) for name in names]
    from rmaat.training.finished import open_run, predict

    finished = open_run(arguments.model)
    for name, text in zip(names, texts, strict=True):
        try:
            (prediction,) = predict(finished, [text])
        except UserError as mistake:
            raise UserError(f"{_shown(name)}: {mistake}") from mistake
        print(f"{_shown(name)}\t{prediction.label}\t{prediction.probability:.4f}")


def _read(name: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode()
    except OSError as error:
        raise UserError(f"cannot read '{name}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{_shown(name)} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _shown(name: str) -> str:
    return "standard input" if name == "-" else name
