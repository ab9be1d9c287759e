"""Write tables and figures of a grid: accuracy, memory and throughput.

The tables have the published results beside the measured ones.
"""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat compare table`."""
    parser.add_argument("folder", type=Path, help="the --output of `rmaat compare accuracy`")


def run(arguments: Namespace) -> None:
    """Write the tables and figures, then print the tables and the paths of the files."""
    from rmaat.grid.tables import write_tables

    text, files = write_tables(arguments.folder)
    print(text)
    for path in files:
        print(path)
