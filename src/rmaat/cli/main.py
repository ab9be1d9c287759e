"""`rmaat VERB ...`: finds the verb's module, parses its flags, runs it, and turns mistakes of the user into one line.

A verb is a module `rmaat.cli.NAME` with two functions: `add_arguments(parser)` declares the flags and may import only
light things, so that help is immediate; `run(arguments)` does the work.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from rmaat.errors import TrainingDivergedError, UserError, did_you_mean

VERBS = {
    "train": "train a model on a task, from a YAML run config and --key value overrides",
    "evaluate": "measure a finished run on the task's test part",
    "predict": "label texts with a finished run",
    "simulate": "simulate the neuron-astrocyte model: traces, figures, retention factors",
    "data": "generate or check the data of a task",
    "list": "list what can be named: tasks, models",
}
"""Each verb's line in `rmaat --help`."""

FAILURE, USER_MISTAKE, INTERRUPTED = 1, 2, 130
"""Exit statuses: a training that diverged, a mistake of the user, Ctrl-C."""


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {line}" for name, line in VERBS.items()]
    return "\n".join(
        [
            "usage: rmaat VERB [options]",
            "",
            "Train transformers on very long sequences in the memory of one short segment.",
            "",
            *lines,
            "",
            "`rmaat VERB --help` lists the options of a verb.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status, 0 where all went well."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else USER_MISTAKE
    try:
        verb, *rest = arguments
        if verb not in VERBS:
            raise UserError(f"unknown command '{verb}'; {did_you_mean(verb, VERBS)}")
        module = importlib.import_module(f"rmaat.cli.{verb}")
        from rmaat.cli.parser import Parser

        parser = Parser(prog=f"rmaat {verb}", description=module.__doc__)
        module.add_arguments(parser)
        module.run(parser.parse_args(rest))
    except UserError as mistake:
        print(f"rmaat: error: {mistake}", file=sys.stderr)
        return USER_MISTAKE
    except TrainingDivergedError as divergence:
        print(f"rmaat: training stopped: {divergence}", file=sys.stderr)
        return FAILURE
    except KeyboardInterrupt:
        print("rmaat: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def entry_point() -> NoReturn:
    """The console script."""
    sys.exit(main())
