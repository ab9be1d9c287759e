"""Write the tables and figures of a grid: accuracy, memory, throughput, with the published figures beside the measured ones."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat compare table`."""
    parser.add_argument("folder", type=Path, help="the --output of `rmaat compare accuracy`")


def run(arguments: Namespace) -> None:
    """Print the tables, and say where they and the figures are."""
    from rmaat.grid.tables import write_tables

    text, files = write_tables(arguments.folder)
    print(text)
    for path in files:
        print(path)
