"""Measure peak memory and time of a training step against the sequence length.

On a CPU each measurement has a fresh process. A method with wrong gradients is not reported.
"""

from jsonargparse import ArgumentParser, Namespace

from rmaat.bench.shape import Shape
from rmaat.cli.compare.common import add_common_arguments, print_tables, run_comparison
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
    limit = None if arguments.limit is None else parse_bytes("--limit", arguments.limit)
    comparison = run_comparison(arguments, "memory", limit=limit, longest=arguments.longest)
    from rmaat.bench.figures import draw_memory
    from rmaat.bench.tables import longest_table, memory_table

    draw_memory(comparison, arguments.output / "memory.png")
    tables = [memory_table(comparison)]
    if comparison.largest:
        tables.append(longest_table(comparison))
    print_tables(tables, [*comparison.unreported(), f"written to {arguments.output}"])
