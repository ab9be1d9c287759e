"""Search settings of a run, such as the learning rate, with the same number of trials per model.

Each trial is a run in a process of its own, judged by its validation accuracy. The first has the
recipe's own values. The same command resumes an interrupted search.
"""

from dataclasses import fields
from pathlib import Path

from jsonargparse import Namespace

from rmaat.cli.parser import Parser
from rmaat.cli.train import sections
from rmaat.errors import CellsFailedError
from rmaat.training.config import RunConfig

TRIALS = 8

SET_BY_THE_SEARCH = {"recipe", "model", "output_dir", "overwrite", "resume", "test_examples", "objective"}
"""Settings that the search sets itself, so they are not flags."""


def add_arguments(parser: Parser) -> None:
    """Declare the flags of `rmaat search`, which include the settings of a run."""
    parser.add_argument(
        "--recipe",
        type=str,
        required=True,
        help="settings to begin with, one of `rmaat list recipes`",
    )
    parser.add_argument(
        "--models",
        type=str,
        nargs="+",
        required=True,
        help="names of `rmaat list models`; 'name[key=value,...]' changes settings",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="folder of the search; made if missing",
    )
    parser.add_argument("--trials", type=int, help=f"trials of each model ({TRIALS})")
    parser.add_argument(
        "--space",
        type=str,
        nargs="+",
        metavar="NAME=VALUES",
        help="settings to search, each name=low:high or name=value,value,... (default: "
        "learning_rate, up to ten times lower or higher)",
    )
    parser.add_argument(
        "--workers",
        type=int | None,
        help="trials at a time (default: number of GPUs; without GPU cores / threads)",
    )
    parser.add_argument(
        "--threads",
        type=int | None,
        help="CPU threads of a trial (default: cores / GPUs; 1 without GPU)",
    )
    parser.add_argument(
        "--ray_address",
        type=str | None,
        help="address of a Ray cluster to run on, such as 'auto' or 'ray://...'",
    )
    parser.add_class_arguments(RunConfig, skip=SET_BY_THE_SEARCH)
    parser.show_sections(
        {
            f"{title}, of all trials": [name for name in names if name not in SET_BY_THE_SEARCH]
            for title, names in sections().items()
        }
    )
    # A preset may change defaults, so it must know which settings the user has set.
    parser.leave_out_defaults()


def run(arguments: Namespace) -> None:
    """Run the missing trials, print the tables, and write the results into the output folder.

    Raises:
        UserError: before anything runs, for a mistake in the flags, and without Optuna.
        CellsFailedError: at the end, if trials failed or a model has no finished trial.
    """
    from rmaat.cli.compare.common import print_tables
    from rmaat.grid.run import check_failed
    from rmaat.grid.search import import_optuna, make_search, run_search
    from rmaat.grid.search_results import best_trials, failures, search_tables, write_results

    import_optuna()
    names = [field.name for field in fields(RunConfig) if field.name not in SET_BY_THE_SEARCH]
    settings = {name: arguments[name] for name in names if name in arguments}
    space, trials = arguments.get("space"), arguments.get("trials", TRIALS)
    search = make_search(arguments.recipe, arguments.models, trials, settings, space)
    places = (arguments.get(name) for name in ("workers", "threads", "ray_address"))
    outcomes = run_search(search, arguments.output, *places)
    files = write_results(search, outcomes, arguments.output)
    remarks = [*failures(outcomes), *(f"written to {path}" for path in files)]
    print_tables(search_tables(search, outcomes), remarks)
    check_failed(outcomes)
    if lost := [model for model in search.models if model not in best_trials(outcomes)]:
        raise CellsFailedError(f"no trial of {', '.join(lost)} finished; search lower values")
