"""What the stress programs share: trials with counted outcomes, child processes, and the report."""

import argparse
import contextlib
import io
import json
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rmaat.errors import UserError
from rmaat.machine.files import write_json
from rmaat.machine.provenance import provenance


@dataclass
class Trials:
    """The trials of one kind.

    Attributes:
        folder: scratch space.
        seed: that of the command.
        dice: all random choices.
        outcomes: how often each outcome occurred.
        faults: descriptions of broken rules.
    """

    folder: Path
    seed: int
    dice: random.Random
    outcomes: Counter[str]
    faults: list[str]

    def fault(self, text: str) -> None:
        """Store and print a description of a broken rule."""
        self.faults.append(text)
        print(text, flush=True)


Kinds = Mapping[str, Callable[[Trials, int], None]]
"""Functions that run a number of trials, by the name of their kind."""


def forked(work: Callable[[], object], log: Path) -> int:
    """Run `work` in a child process, with its output in a file; return the process's id.

    Its exit status is 0, 2 for a `UserError`, and 1 for any other exception.
    """
    if pid := os.fork():
        return pid
    status = 1
    with log.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        try:
            work()
            status = 0
        except UserError as mistake:
            print(f"UserError: {mistake}", flush=True)
            status = 2
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def wait(pid: int, seconds: float | None = None) -> int | None:
    """Return the exit status of a child, negative for a signal; None if it runs for longer."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, 0 if deadline is None else os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        assert deadline is not None
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.002)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Swallow what is printed."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


class Malicious:
    """An object whose unpickling makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def run_program(program: str, purpose: str | None, kinds: Kinds, argv: Sequence[str] | None = None) -> int:
    """Read the flags, run the trials of a kind, print and store the counts.

    Returns:
        The exit status, 1 if a rule was broken.
    """
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    words = parser.parse_args(argv)
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        trials = Trials(Path(scratch), words.seed, random.Random(words.seed), Counter(), [])
        kinds[words.kind](trials, words.count)
    record = {
        "count": words.count,
        "outcomes": dict(sorted(trials.outcomes.items())),
        "faults": len(trials.faults),
        "seconds": round(time.monotonic() - started),
        **provenance(),
        "command": f"python -m {program} {words.kind} --count {words.count} --seed {words.seed}",
    }
    print(words.kind, record)
    if words.output is not None:
        former = json.loads(words.output.read_text()) if words.output.exists() else {}
        write_json(words.output, {**former, words.kind: record})
    return int(bool(trials.faults))
