"""Measure peak memory and time of a training step against the sequence length.

On a CPU each measurement has a fresh process. A method with wrong gradients is not reported.
"""

from jsonargparse import ArgumentParser, Namespace

from rmaat.bench.shape import Shape
from rmaat.cli.compare.common import (
    add_common_arguments,
    common_settings,
    print_tables,
    run_comparison,
)
from rmaat.machine.units import parse_bytes

LONGEST = 1024 * 1024


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat compare memory`."""
    add_common_arguments(parser)
    parser.add_argument(
        "--tokens",
        type=int,
        nargs="+",
        default=[Shape.tokens],
        help="sequence lengths, multiples of segment_length",
    )
    parser.add_class_arguments(Shape, skip={"tokens"})
    parser.add_argument(
        "--warm_up",
        type=int,
        default=1,
        help="untimed steps before each measurement",
    )
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each measurement")
    parser.add_argument(
        "--limit",
        type=str | None,
        help="also search the longest sequence (batch 1) with this peak memory, such as 2GiB",
    )
    parser.add_argument(
        "--longest",
        type=int,
        default=LONGEST,
        help="longest sequence of the search, in tokens",
    )


def run(arguments: Namespace) -> None:
    """Measure, print the tables, and write memory.json (after every row) and memory.png."""
    settings = common_settings(arguments)
    from rmaat.bench.memory import MemoryComparison

    comparison = MemoryComparison(
        **settings,
        tokens=tuple(sorted(set(arguments.tokens))),
        limit=None if arguments.limit is None else parse_bytes("--limit", arguments.limit),
        longest=arguments.longest,
    )
    folder = run_comparison(comparison, arguments.output, "memory")
    from rmaat.bench.figures import draw_memory

    draw_memory(comparison, folder / "memory.png")
    print_tables(comparison.tables(), [*comparison.unreported(), f"written to {folder}"])
