"""Time a training step, and say what share of the machine's matrix-product rate it reaches.

Methods run in turns, each in a fresh process in every round. A method whose gradients depart from its reference is not reported.
"""

from jsonargparse import ArgumentParser, Namespace

from rmaat.cli.compare.common import Bar, add_common_arguments, print_tables, setting_of
from rmaat.cli.folders import writable_folder
from rmaat.compare.shapes import Shape


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat compare speed`."""
    add_common_arguments(parser)
    parser.add_class_arguments(Shape)
    parser.add_argument("--repeats", type=int, default=5, help="rounds, each with a process for every method")
    parser.add_argument("--warm_up", type=int, default=1, help="untimed steps of each process")
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each process")


def run(arguments: Namespace) -> None:
    """Time, print the table, and write speed.json (after every method of every round) and speed.png."""
    bar = Bar()
    setting = setting_of(arguments, bar.begin)
    from rmaat.compare.speed import SpeedPlan, compare_speed
    from rmaat.machine.files import write_json

    plan = SpeedPlan(setting, arguments.repeats, arguments.warm_up, arguments.steps)
    plan.check()
    folder = writable_folder(arguments.output)
    with bar.shown(plan.pieces):
        comparison = compare_speed(plan, lambda so_far: write_json(folder / "speed.json", so_far.to_json()))

    from rmaat.compare.figures import draw_speed
    from rmaat.compare.tables import refusals, speed_listing

    draw_speed(comparison, folder / "speed.png")
    print_tables(
        [speed_listing(comparison)], [*refusals(comparison.verdicts.values(), setting.absent), f"written to {folder}"]
    )
