"""One cell as one process of `rmaat train`, begun or resumed."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import yaml

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
from rmaat.training.checkpoints import last_usable_checkpoint, numbered_checkpoints, remove
from rmaat.training.run_folder import METRICS

LOG = "log.txt"
TAIL_BYTES = 4000
POLL_SECONDS = 0.2
PATIENCE_SECONDS = 10.0
BAR = re.compile(rb"(\d+)/(\d+) \[")
"""Steps done and steps in all, in the progress bar of `rmaat train`."""


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
        _prepare(cell, folder)
        # Metrics without a status: a power cut damaged the status of a finished cell.
        code = 0 if read_file(folder / METRICS) else _train(folder, environment, stopped)
        if code is None:
            return Outcome(cell, BEGUN)
        outcome = _outcome(cell, folder, code)
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


def steps_of(folder: Path) -> tuple[int, int] | None:
    """Return steps done and steps in all by the bar in a run's log, or None before there is one."""
    try:
        bars = BAR.findall(_tail(folder / LOG))
    except OSError:
        return None
    return (int(bars[-1][0]), int(bars[-1][1])) if bars else None


def _prepare(cell: Cell, folder: Path) -> None:
    """Write the cell's settings and status; a run of other settings is removed first."""
    settings = {**cell.settings, "output_dir": str(folder)}
    stored = read_file(folder / CELL_CONFIG)
    if stored is None or effective(stored) != effective(settings):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    # Written each time: the data may have moved since, which changes no result.
    write_text(folder / CELL_CONFIG, yaml.safe_dump(settings, sort_keys=False))
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
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _outcome(cell: Cell, folder: Path, code: int) -> Outcome:
    """Return the outcome of a process that ended with exit status `code`."""
    if metrics := read_file(folder / METRICS):
        remove_checkpoints(folder)
        return Outcome(cell, FINISHED, metrics=metrics)
    log = folder / LOG
    tail = _tail(log)
    # The command's last line may follow a progress bar that is redrawn as the process ends.
    for beginning, status in ((DIVERGENCE_PREFIX, DIVERGED), (ERROR_PREFIX, FAILED)):
        _, separator, rest = tail.rpartition(beginning.encode())
        if separator:
            return Outcome(cell, status, re.split(rb"[\r\n]", rest)[0].decode(errors="replace"))
    if code < 0:
        reason = f"killed by signal {-code}, perhaps because memory ran out; see {log}"
        return Outcome(cell, FAILED, reason)
    lines = [line.strip() for line in re.split(rb"[\r\n]+", tail) if not BAR.search(line)]
    last = next((line for line in reversed(lines) if line), b"no output")
    reason = f"{last.decode(errors='replace')} (exit status {code}; see {log})"
    return Outcome(cell, FAILED, reason)


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read()
