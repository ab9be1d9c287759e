"""One cell as one process of `rmaat train`, begun or resumed."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from rmaat.errors import DIVERGENCE_PREFIX, ERROR_PREFIX, UserError
from rmaat.grid.cells import Cell, effective
from rmaat.grid.outcomes import (
    BEGUN,
    CELL_CONFIG,
    DIVERGED,
    FAILED,
    FINISHED,
    Outcome,
    read_file,
    write_status,
)
from rmaat.machine.files import sync_to_disk, write_text
from rmaat.settings_file import settings_text
from rmaat.training.checkpoints import last_usable_checkpoint, numbered_checkpoints, remove
from rmaat.training.config import RunConfig
from rmaat.training.run_folder import METRICS

LOG = "log.txt"
POLL_SECONDS = 0.2
PATIENCE_SECONDS = 10.0
BAR = re.compile(r"\d+/\d+ \[")
"""The progress bar of `rmaat train`."""


def run_cell(
    cell: Cell,
    folder: Path,
    environment: Mapping[str, str],
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train and test a cell in a process, from its last checkpoint if there is one.

    Args:
        cell: the cell.
        folder: its folder, absolute.
        environment: variables added to the process's environment.
        stopped: called about five times a second; the process is ended once it returns true.

    Returns:
        The outcome, also written to the folder. Its status is `BEGUN` if the cell was stopped.
    """
    started = time.monotonic()
    try:
        prepare(cell, folder)
        # Metrics without a status: a power cut damaged the status of a finished cell.
        code = 0 if read_file(folder / METRICS) else _train(folder, environment, stopped)
        if code is None:
            return Outcome(cell, BEGUN)
        if metrics := read_file(folder / METRICS):
            remove_checkpoints(folder)
            outcome = Outcome(cell, FINISHED, metrics=metrics)
        else:
            outcome = Outcome(cell, *_failure(folder / LOG, code))
        write_status(folder, outcome, round(time.monotonic() - started, 1))
    except OSError as error:
        outcome = Outcome(cell, FAILED, f"cannot be run: {error}")
        with contextlib.suppress(OSError):
            write_status(folder, outcome)
    return outcome


def remove_checkpoints(folder: Path) -> None:
    """Remove a finished run's checkpoints."""
    for checkpoint in numbered_checkpoints(folder):
        # Without metrics and checkpoints, a power cut would undo the whole run.
        sync_to_disk(folder / METRICS)
        remove(checkpoint)


def prepare(cell: Cell, folder: Path) -> None:
    """Write the cell's settings and status; a run of other settings is removed first.

    Raises:
        OSError: if the folder cannot be written.
    """
    settings = {**cell.settings, "output_dir": str(folder)}
    stored = read_file(folder / CELL_CONFIG)
    # Earlier versions lack new settings, which have their defaults then.
    defaults = asdict(RunConfig())
    if stored is None or effective({**defaults, **stored}) != effective({**defaults, **settings}):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    # Written each time: the data may have moved since, which changes no result.
    write_text(folder / CELL_CONFIG, settings_text(settings))
    write_status(folder, Outcome(cell, BEGUN))


def _train(folder: Path, environment: Mapping[str, str], stopped: Callable[[], bool]) -> int | None:
    """Return the process's exit status, or None if it was stopped."""
    try:
        resume = last_usable_checkpoint(folder) is not None
    except UserError:
        resume = False  # All are damaged.
    command = [sys.executable, "-m", "rmaat.grid.child", str(os.getpid())]
    command += ["train", "--config", str(folder / CELL_CONFIG)]
    command += ["--resume" if resume else "--overwrite", "true"]
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TQDM_MININTERVAL": "2", **environment},
            # Ctrl-C is for the grid alone, which then ends its cells.
            start_new_session=True,
        )
    try:
        while not stopped():
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(POLL_SECONDS)
        return None
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _failure(log: Path, code: int) -> tuple[str, str]:
    """Return status and reason of a process that ended with exit status `code` and no metrics."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    for beginning, status in ((DIVERGENCE_PREFIX, DIVERGED), (ERROR_PREFIX, FAILED)):
        # The message may follow a progress bar, which is drawn once more as the process ends.
        if reasons := [line.partition(beginning)[2] for line in lines if beginning in line]:
            return status, reasons[-1]
    if code < 0:
        return FAILED, f"killed by signal {-code}, perhaps because memory ran out; see {log}"
    last = next((line for line in reversed(lines) if not BAR.search(line)), "no output")
    return FAILED, f"{last} (exit status {code}; see {log})"
