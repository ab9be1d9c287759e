"""Time a training step, and compute its share of the machine's matrix-product rate.

Methods take turns. On a CPU each has a fresh process in every round. A method with wrong gradients
is not reported.
"""

from jsonargparse import ArgumentParser, Namespace

from rmaat.bench.shape import Shape
from rmaat.cli.compare.common import add_common_arguments, print_tables, run_comparison

LEAST_STEPS = 5
"""The fewest timed steps for a median."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat compare speed`."""
    add_common_arguments(parser)
    parser.add_class_arguments(Shape)
    parser.add_argument("--repeats", type=int, default=5, help="rounds over all methods")
    parser.add_argument(
        "--warm_up",
        type=int,
        default=1,
        help="untimed steps before each measurement",
    )
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each measurement")


def run(arguments: Namespace) -> None:
    """Time, print the table, and write speed.json after each method and round."""
    settings = {"repeats": arguments.repeats, "least_steps": LEAST_STEPS, "rated": True}
    comparison = run_comparison(arguments, "speed", **settings)
    from rmaat.bench.tables import speed_table

    remarks = [*comparison.unreported(), f"written to {arguments.output}"]
    print_tables([speed_table(comparison)], remarks)
