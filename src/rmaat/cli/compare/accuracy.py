"""Train a grid of tasks, models and seeds, with one process per cell.

The same command resumes an interrupted grid.
"""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rmaat.grid.presets import GRIDS, MODEL_GROUPS


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat compare accuracy`."""
    groups = ", ".join(MODEL_GROUPS)
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="folder of the grid; made if missing",
    )
    parser.add_argument(
        "--preset",
        type=str,
        default="cpu",
        help=f"one of: {', '.join(GRIDS.names())}",
    )
    parser.add_argument("--tasks", type=str, nargs="*", help="tasks of the preset (default: all)")
    parser.add_argument(
        "--models",
        type=str,
        nargs="*",
        help=f"models of `rmaat list models`, or groups ({groups}); 'name[key=value,...]' changes "
        "settings (default: the preset's)",
    )
    parser.add_argument(
        "--seeds",
        type=int | None,
        help="number of seeds, counted from 0 (default: the preset's)",
    )
    parser.add_argument(
        "--max_steps",
        type=int | None,
        help="steps of each run (default: the preset's)",
    )
    parser.add_argument(
        "--data_dir",
        type=str | None,
        help="data folder (default: $RMAAT_DATA, else datasets/)",
    )
    parser.add_argument(
        "--workers",
        type=int | None,
        help="cells at a time (default: number of GPUs; without GPU cores / threads)",
    )
    parser.add_argument(
        "--threads",
        type=int | None,
        help="CPU threads of a cell (default: cores / GPUs; 1 without GPU)",
    )
    parser.add_argument(
        "--ray_address",
        type=str | None,
        help="address of a Ray cluster to run on, such as 'auto' or 'ray://...'",
    )


def run(arguments: Namespace) -> None:
    """Run the missing cells and print the paths of the results."""
    from rmaat.grid.cells import CELLS, make_cells
    from rmaat.grid.run import check_failed, run_grid

    cells = make_cells(
        GRIDS[arguments.preset],
        arguments.tasks,
        arguments.models,
        arguments.seeds,
        arguments.data_dir,
        arguments.max_steps,
    )
    outcomes = run_grid(cells, arguments.output, arguments.workers, arguments.threads, arguments.ray_address)
    print(f"results                  {arguments.output / CELLS}")
    print(f"tables and figures       rmaat compare table {arguments.output}")
    check_failed(outcomes)
