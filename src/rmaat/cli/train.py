"""Train a model on a task. Settings come from a YAML run config and from --key value, the latter winning.

Sources of settings: [P] the RMAAT paper (arXiv 2601.00426), [A] its astromorphic predecessor (arXiv 2312.10925), [C] this
project's choice.
"""

from dataclasses import fields

from jsonargparse import Namespace

from rmaat.cli.parser import Parser
from rmaat.training.config import RunConfig


def add_arguments(parser: Parser) -> None:
    """One flag a setting, with its type and help from the run config itself."""
    parser.add_argument("--config", action="config", help="YAML file of settings, see configs/")
    parser.add_argument(
        "--print_config",
        type=bool,
        default=False,
        help="check, and print every setting as run.yaml would hold it; no training",
    )
    parser.add_class_arguments(RunConfig)
    # A preset must know what was given from what is left at its default.
    parser.leave_out_defaults()


def run(arguments: Namespace) -> None:
    """Train, and print where the results are; or, where it is asked for, the settings alone."""
    config = RunConfig.resolved({f.name: arguments[f.name] for f in fields(RunConfig) if f.name in arguments})
    from rmaat.cli.progress import count_bar
    from rmaat.cli.quiet import hide_progress_of_transformers
    from rmaat.tasks.base import no_bar
    from rmaat.training.run import is_first_process, prepared, train

    if arguments.get("print_config"):
        print(prepared(config).run.to_yaml(), end="")
        return
    hide_progress_of_transformers()
    result = train(config, count_bar if is_first_process() else no_bar)
    if not is_first_process():
        return
    metrics, folder = result.metrics, result.output_dir
    tested, given = metrics["test_examples"], metrics["data"]["test"]["examples"]
    examples = f"{tested} examples" if tested == given else f"{tested} of {given} examples"
    print(f"\ntest accuracy            {100 * metrics['test_accuracy']:6.2f}%   ({examples})")
    print(f"always the commonest     {100 * metrics['test_majority_accuracy']:6.2f}%")
    print(f"curves                   {folder / 'curves.png'}")
    print(f"metrics                  {folder / 'metrics.json'}")
