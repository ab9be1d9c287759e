"""Run a grid of tasks, models and seeds, one process a cell. The same command again goes on where it was left."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rmaat.grid.presets import GRIDS, MODEL_GROUPS
from rmaat.presets import MODELS


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat compare accuracy`."""
    names = ", ".join((*MODELS.names(), *MODEL_GROUPS))
    parser.add_argument("--output", type=Path, required=True, help="folder of the grid, made if missing")
    parser.add_argument("--preset", type=str, default="cpu", help=f"one of: {', '.join(GRIDS.names())}")
    parser.add_argument("--tasks", type=str, nargs="*", help="tasks of the preset (default: all)")
    parser.add_argument(
        "--models",
        type=str,
        nargs="*",
        help=f"of: {names}; 'name[key=value,...]' changes settings (default: the preset's)",
    )
    parser.add_argument("--seeds", type=int | None, help="number of seeds, from 0 on (default: the preset's)")
    parser.add_argument("--max_steps", type=int | None, help="steps of each run (default: the preset's)")
    parser.add_argument("--data_dir", type=str | None, help="data folder (default: $RMAAT_DATA, else datasets/)")
    parser.add_argument("--workers", type=int | None, help="cells at a time (default: one a GPU, else cores / threads)")
    parser.add_argument("--threads", type=int | None, help="CPU threads of a cell (default: 1; cores / GPUs with GPUs)")
    parser.add_argument("--ray_address", type=str | None, help="run on this Ray cluster, such as 'auto' or 'ray://...'")


def run(arguments: Namespace) -> None:
    """Run what is missing and say where the results are."""
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
