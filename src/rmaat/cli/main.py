"""`rmaat VERB ...`: finds the verb's module, parses its flags, runs it, and turns mistakes of the user into one line.

A verb is a module `rmaat.cli.NAME` with two functions: `add_arguments(parser)` declares the flags and may import only
light things, so that help is immediate; `run(arguments)` does the work. A verb that is a package has a table `VERBS` of its
own instead, and its verbs are the modules in it.
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import FrameType
from typing import Any, NoReturn

from rmaat.errors import DIVERGENCE, MISTAKE, CellsFailedError, TrainingDivergedError, UserError, did_you_mean

VERBS = {
    "train": "train a model on a task, from a recipe or a YAML file, and --key value",
    "evaluate": "measure a finished run on the task's test part",
    "predict": "label texts with a finished run",
    "simulate": "simulate the neuron-astrocyte model: traces, figures, retention factors",
    "data": "generate or check the data of a task",
    "compare": "compare models side by side: accuracy, memory, time",
    "list": "list what can be named: tasks, models, recipes",
}
"""Each verb's line in `rmaat --help`."""

PURPOSE = "Train transformers on very long sequences in the memory of one short segment."

FAILURE, USER_MISTAKE, INTERRUPTED, READER_GONE = 1, 2, 130, 141
"""Exit statuses: a training that diverged or cells that failed, a mistake of the user, Ctrl-C."""


class _Help(Exception):  # noqa: N818
    """An overview that is to be printed instead of doing anything; `asked` tells whether it was asked for."""

    def __init__(self, text: str, asked: bool) -> None:
        super().__init__(text)
        self.asked = asked


def _overview(prog: str, purpose: str, verbs: dict[str, str]) -> str:
    width = max(map(len, verbs))
    lines = [f"  {name:<{width}}  {line}" for name, line in verbs.items()]
    options = f"`{prog} VERB --help` lists the options of a verb."
    return "\n".join([f"usage: {prog} VERB [options]", "", purpose, "", *lines, "", options])


def _find(
    words: Sequence[str], prog: str, package: str, purpose: str, verbs: dict[str, str]
) -> tuple[str, Any, list[str]]:
    """The program's name as far as the verb, the verb's module, and the words after it; raises `_Help` where there is none."""
    if not words or words[0] in ("-h", "--help"):
        raise _Help(_overview(prog, purpose, verbs), asked=bool(words))
    if words[0] == "--version":
        raise _Help(f"rmaat {version('rmaat')}", asked=True)
    verb, *rest = words
    if verb not in verbs:
        raise UserError(f"unknown command '{verb}'; {did_you_mean(verb, verbs)}")
    prog, module = f"{prog} {verb}", importlib.import_module(f"{package}.{verb}")
    if hasattr(module, "VERBS"):
        return _find(rest, prog, module.__name__, module.__doc__ or "", module.VERBS)
    return prog, module, rest


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status, 0 where all went well."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        prog, module, rest = _find(arguments, "rmaat", "rmaat.cli", PURPOSE, VERBS)
        from rmaat.cli.parser import Parser

        # jsonargparse's own flag prints what was given, unchecked.
        parser = Parser(prog=prog, description=module.__doc__, print_config=None)
        module.add_arguments(parser)
        module.run(parser.parse_args(rest))
    except _Help as overview:
        print(overview)
        return 0 if overview.asked else USER_MISTAKE
    except UserError as mistake:
        print(f"{MISTAKE}{mistake}", file=sys.stderr)
        return USER_MISTAKE
    except TrainingDivergedError as divergence:
        print(f"{DIVERGENCE}{divergence}", file=sys.stderr)
        return FAILURE
    except CellsFailedError as failure:
        print(f"rmaat: {failure}", file=sys.stderr)
        return FAILURE
    except KeyboardInterrupt:
        print("rmaat: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def entry_point() -> NoReturn:
    """The console script. Being told to end (SIGTERM) unwinds as Ctrl-C does, so that no process or half a file stays behind."""
    signal.signal(signal.SIGTERM, _unwind)
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has gone, as `head` does; what is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = READER_GONE
    sys.exit(status)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
