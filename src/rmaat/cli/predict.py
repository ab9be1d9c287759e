"""Label texts with a finished run: one line a text, with its label and probability."""

import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """The run's folder and the files."""
    parser.add_argument("--model", type=Path, required=True, help="folder of a finished run")
    parser.add_argument(
        "files", nargs="*", help="text files, UTF-8, or pictures for an image task; none or '-' reads standard input"
    )


def run(arguments: Namespace) -> None:
    """Print name, label and probability of each text, or of each two for a run on pairs, tab-separated."""
    names = arguments.files or ["-"]
    import torch

    from rmaat.cli.quiet import hide_progress_of_transformers
    from rmaat.training.finished import open_run, predict

    hide_progress_of_transformers()
    finished = open_run(arguments.model)
    finished.model.to("cuda" if torch.cuda.is_available() else "cpu")
    read = str if finished.source.info.kind == "image" else _read
    size = len(finished.source.info.columns)
    if len(names) % size:
        raise UserError(f"a run on {finished.config.dataset} takes files two by two; {len(names)} were given")
    for start in range(0, len(names), size):
        of_example = names[start : start + size]
        shown = ", ".join(map(_shown, of_example))
        try:
            prediction = predict(finished, [read(name) for name in of_example])
        except UserError as mistake:
            raise UserError(f"{shown}: {mistake}") from mistake
        print(f"{shown}\t{prediction.label}\t{prediction.probability:.4f}")


def _read(name: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 text: {error.reason} at byte {error.start}") from error


def _shown(name: str) -> str:
    return "standard input" if name == "-" else name
