"""Measure peak memory and time of a training step against the length of the sequence.

On a CPU each method runs in a fresh process at each length. A method whose gradients depart from its reference is not reported.
"""

from jsonargparse import ArgumentParser, Namespace

from rmaat.cli.compare.common import Bar, add_common_arguments, print_tables, setting_of
from rmaat.cli.folders import writable_folder
from rmaat.compare.shapes import Shape
from rmaat.machine.units import parse_bytes

LONGEST = 1024 * 1024


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat compare memory`."""
    add_common_arguments(parser)
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=[Shape.tokens], help="lengths, multiples of segment_length"
    )
    parser.add_class_arguments(Shape, skip={"tokens"})
    parser.add_argument("--warm_up", type=int, default=1, help="untimed steps of each measurement")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each measurement")
    parser.add_argument(
        "--limit", type=str | None, help="also find the longest sequence, batch 1, under this peak, such as 2GiB"
    )
    parser.add_argument("--longest", type=int, default=LONGEST, help="where the search under --limit ends, in tokens")


def run(arguments: Namespace) -> None:
    """Measure, print the tables, and write memory.json (after every row) and memory.png."""
    bar = Bar()
    setting = setting_of(arguments, bar.begin)
    from rmaat.compare.memory import MemoryPlan, compare_memory
    from rmaat.machine.files import write_json

    limit = None if arguments.limit is None else parse_bytes("--limit", arguments.limit)
    tokens = tuple(sorted(set(arguments.tokens)))
    plan = MemoryPlan(setting, tokens, arguments.warm_up, arguments.steps, limit, arguments.longest)
    plan.check()
    folder = writable_folder(arguments.output)
    with bar.shown(plan.pieces):
        comparison = compare_memory(plan, lambda so_far: write_json(folder / "memory.json", so_far.to_json()))

    from rmaat.compare.figures import draw_memory
    from rmaat.compare.tables import largest_listing, memory_listing, refusals

    draw_memory(comparison, folder / "memory.png")
    listings = [memory_listing(comparison)]
    if comparison.largest:
        listings.append(largest_listing(comparison))
    print_tables(listings, [*refusals(comparison.verdicts.values(), setting.absent), f"written to {folder}"])
