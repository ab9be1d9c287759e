"""Entry point of `rmaat VERB ...`: find the verb's module, parse its flags, and run it.

A mistake of the user becomes one line on standard error.

A verb is a module `rmaat.cli.NAME` with two functions. `add_arguments(parser)` declares the flags;
it imports only light packages, so that help is immediate. `run(arguments)` does the work. A group
of verbs is a package with a table `VERBS`; its modules are the verbs of the group.
"""

import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from types import FrameType
from typing import Any, NoReturn

from rmaat.errors import (
    DIVERGENCE_PREFIX,
    ERROR_PREFIX,
    CellsFailedError,
    TrainingDivergedError,
    UserError,
    did_you_mean,
    one_line,
    quoted,
)

VERBS = {
    "train": "train a model on a task; settings come from a recipe, a YAML file and --key value",
    "pretrain": "train a model without labels, to predict masked positions or each next token",
    "evaluate": "measure a finished run on the task's test part",
    "predict": "label texts with a finished run",
    "generate": "go on with a text, by a language model of `rmaat pretrain`",
    "explain": "show which segments of a text decided its label",
    "serve": "open a local page that reads a text segment by segment",
    "simulate": "simulate the neuron-astrocyte model: traces, figures, retention factors",
    "data": "generate, download or check the data of a task",
    "compare": "compare models side by side: accuracy, memory, time",
    "search": "search the learning rate and other settings of models, with equal trials",
    "list": "list the names of tasks, models, recipes and attention types",
}
"""Line of each verb in `rmaat --help`."""

PURPOSE = "Train transformers on very long sequences in the memory of one short segment."

FAILURE, USER_MISTAKE, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141
"""Exit statuses: diverged training, failed cells or an error of this program, mistake of the user,
Ctrl-C, closed pipe."""

TRACEBACK = "RMAAT_TRACEBACK"
"""If this environment variable is not empty, errors print their tracebacks before their lines."""

OUT_OF_MEMORY = "out of memory; take a smaller model, a smaller batch or shorter segments"

ALLOCATION_FAILED = ("can't allocate memory", "out of memory", "Unable to allocate")
"""Parts of the messages with which torch and numpy report that memory ran out."""

NOT_WRITTEN = "a checkpoint cannot be written; the disk may be full, or its folder may be gone"

UNWRITTEN = ("inline_container", "Error while serializing", "Parent directory")
"""Parts of the messages with which torch and safetensors report that a file cannot be written."""


class _Help(Exception):  # noqa: N818
    """Help text to print instead of running a verb.

    Attributes:
        requested: True if the user requested help; False if the verb is missing.
    """

    def __init__(self, text: str, requested: bool) -> None:
        super().__init__(text)
        self.requested = requested


def _overview(prog: str, purpose: str, verbs: dict[str, str]) -> str:
    width = max(map(len, verbs))
    lines = [f"  {name:<{width}}  {line}" for name, line in verbs.items()]
    options = f"`{prog} VERB --help` lists the options of a verb."
    return "\n".join([f"usage: {prog} VERB [options]", "", purpose, "", *lines, "", options])


def _find_verb(
    words: Sequence[str], prog: str, package: str, purpose: str, verbs: dict[str, str]
) -> tuple[str, Any, list[str]]:
    """Return the program's name including the verb, the verb's module, and the words after it.

    Raises:
        _Help: if the words contain no verb.
        UserError: for an unknown verb.
    """
    if not words or words[0] in ("-h", "--help"):
        raise _Help(_overview(prog, purpose, verbs), requested=bool(words))
    if words[0] == "--version":
        raise _Help(f"rmaat {version('rmaat')}", requested=True)
    verb, *rest = words
    if verb not in verbs:
        raise UserError(f"unknown command '{verb}'; {did_you_mean(verb, verbs)}")
    prog, module = f"{prog} {verb}", importlib.import_module(f"{package}.{verb}")
    if hasattr(module, "VERBS"):
        return _find_verb(rest, prog, module.__name__, module.__doc__ or "", module.VERBS)
    return prog, module, rest


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status, which is 0 on success."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    former_hook, threading.excepthook = threading.excepthook, _report_thread
    try:
        prog, module, rest = _find_verb(arguments, "rmaat", "rmaat.cli", PURPOSE, VERBS)
        from rmaat.cli.parser import Parser

        # jsonargparse's --print_config prints settings without checking them.
        parser = Parser(prog=prog, description=module.__doc__, print_config=None)
        module.add_arguments(parser)
        module.run(parser.parse_args(rest))
    except _Help as overview:
        print(overview)
        return 0 if overview.requested else USER_MISTAKE
    except KeyboardInterrupt as interrupt:
        # A terminal shows ^C in the line where the cursor is.
        start = "\n" if sys.stderr.isatty() else ""
        advice = f"; {interrupt}" if str(interrupt) else ""
        print(f"{start}rmaat: interrupted{advice}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        status, line = _described(error)
        print(one_line(line), file=sys.stderr)
        return status
    finally:
        threading.excepthook = former_hook
    return 0


def _report_thread(failure: threading.ExceptHookArgs) -> None:
    """Print one line about an error that ended a thread, such as a logger's on a full disk."""
    if os.environ.get(TRACEBACK):
        threading.__excepthook__(failure)
    else:
        reason = f"{failure.exc_type.__name__}: {failure.exc_value}"
        print(one_line(f"rmaat: warning: a thread in the background failed: {reason}"), file=sys.stderr)


def _described(error: Exception) -> tuple[int, str]:
    """Return the exit status and the line of an error."""
    reason = str(error)
    match error:
        case UserError():
            return USER_MISTAKE, f"{ERROR_PREFIX}{reason}"
        case TrainingDivergedError():
            return FAILURE, f"{DIVERGENCE_PREFIX}{reason}"
        case CellsFailedError():
            return FAILURE, f"rmaat: {reason}"
        case OSError():
            place = "" if error.filename is None else f"{quoted(str(error.filename))}: "
            return USER_MISTAKE, f"{ERROR_PREFIX}{place}{error.strerror or reason}"
        case MemoryError():
            return USER_MISTAKE, f"{ERROR_PREFIX}{OUT_OF_MEMORY}"
    if any(part in reason for part in ALLOCATION_FAILED):
        return USER_MISTAKE, f"{ERROR_PREFIX}{OUT_OF_MEMORY}"
    if any(part in reason for part in UNWRITTEN):
        return USER_MISTAKE, f"{ERROR_PREFIX}{NOT_WRITTEN}"
    kind = type(error).__name__
    return FAILURE, f"{ERROR_PREFIX}internal error: {kind}: {reason} (set {TRACEBACK}=1 to see where)"


def entry_point() -> NoReturn:
    """Run the console script.

    SIGTERM raises an exception, like Ctrl-C, so that child processes end and partial files go.
    """
    signal.signal(signal.SIGTERM, _unwind)
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the pipe, such as `head`, has ended. Redirect standard output, because
        # Python flushes its buffer once more at exit and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = BROKEN_PIPE
    sys.exit(status)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
