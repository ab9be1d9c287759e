"""One cell as one process of `rmaat train`, begun, resumed or found finished; and what became of it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rmaat.compare.grid.cells import Cell, computed
from rmaat.compare.grid.results import DIVERGED, FAILED, FINISHED, Record
from rmaat.errors import DIVERGENCE, MISTAKE
from rmaat.machine.files import write_text
from rmaat.training.folder import CHECKPOINT_PREFIX, METRICS, RUN_CONFIG, last_whole_checkpoint

CELL_CONFIG = "cell.yaml"
LOG = "log.txt"
TAIL_BYTES = 4000
POLL_SECONDS = 0.2
PATIENCE_SECONDS = 10.0
BAR = re.compile(rb"(\d+)/(\d+) \[")


@dataclass(frozen=True)
class Job:
    """A cell and where its run goes."""

    cell: Cell
    folder: Path


def run_job(job: Job, environment: Mapping[str, str], stopped: Callable[[], bool] = lambda: False) -> Record | None:
    """Train and test a cell in a process of its own, going on from its last checkpoint where there is one.

    Args:
        job: the cell and its folder.
        environment: variables that the process gets beside this one's.
        stopped: asked now and then; once it is true the process is ended.

    Returns:
        What became of the cell, or None where it was stopped.
    """
    started = time.monotonic()
    metrics = job.folder / METRICS
    try:
        code = 0 if _prepared(job) and metrics.exists() else _train(job, environment, stopped)
    except OSError as error:
        return _record(job, FAILED, reason=f"cannot be started: {error}")
    if code is None:
        return None
    if code != 0:
        return _record(job, *_failure(code, job.folder / LOG))
    for checkpoint in job.folder.glob(f"{CHECKPOINT_PREFIX}*"):
        shutil.rmtree(checkpoint)
    found = json.loads(metrics.read_text(encoding="utf-8"))
    parts = found.pop("data")
    lengths = {part: facts["lengths"] for part, facts in parts.items()}
    examples = {part: facts["examples"] for part, facts in parts.items()}
    wall = round(time.monotonic() - started, 1)
    found["config"] = computed(yaml.safe_load((job.folder / RUN_CONFIG).read_text(encoding="utf-8")))
    # As from within the grid's folder: results are for others, who have other folders.
    found["command"] = found["command"].replace(str(job.folder), job.cell.folder(Path()).as_posix())
    return _record(job, FINISHED, **found, examples=examples, lengths=lengths, wall_seconds=wall)


def steps_of(folder: Path) -> tuple[int, int] | None:
    """Steps done and steps in all, as the run's bar last told; None before it does."""
    try:
        tail = _tail(folder / LOG)
    except OSError:
        return None
    told = BAR.findall(tail)
    return (int(told[-1][0]), int(told[-1][1])) if told else None


def _prepared(job: Job) -> bool:
    """Write the cell's settings into its folder; tell whether it holds a run of them, begun or finished. Another is removed."""
    config = job.folder / CELL_CONFIG
    settings = {**job.cell.settings, "output_dir": str(job.folder)}
    same = config.exists() and computed(yaml.safe_load(config.read_text(encoding="utf-8"))) == computed(settings)
    if not same:
        shutil.rmtree(job.folder, ignore_errors=True)
        job.folder.mkdir(parents=True)
    # Anew each time: where data and folders are may have changed, which changes no result.
    write_text(config, yaml.safe_dump(settings, sort_keys=False))
    return same


def _train(job: Job, environment: Mapping[str, str], stopped: Callable[[], bool]) -> int | None:
    """The process's exit status, or None where it was stopped."""
    resume = last_whole_checkpoint(job.folder) is not None
    command = [sys.executable, "-m", "rmaat.compare.grid.child", str(os.getpid())]
    command += ["train", "--config", str(job.folder / CELL_CONFIG), "--resume" if resume else "--overwrite", "true"]
    # Ctrl-C is for the grid, which then ends its cells: hence a session of their own.
    with (job.folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TQDM_MININTERVAL": "2", **environment},
            start_new_session=True,
        )
    try:
        while not stopped():
            try:
                return process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
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


def _failure(code: int, log: Path) -> tuple[str, str]:
    """Status and reason of a process that ended badly."""
    tail = _tail(log)
    # The command's own line may stand behind a bar that nobody closed, which is drawn once more as the process ends.
    for beginning, status in ((DIVERGENCE, DIVERGED), (MISTAKE, FAILED)):
        _, found, said = tail.rpartition(beginning.encode())
        if found:
            return status, re.split(rb"[\r\n]", said)[0].decode(errors="replace")
    lines = [line.strip() for line in re.split(rb"[\r\n]+", tail) if line.strip() and not BAR.search(line)]
    last = lines[-1].decode(errors="replace") if lines else "it said nothing"
    if code < 0:
        return FAILED, f"killed by signal {-code}, perhaps for want of memory; see {log}"
    return FAILED, f"{last} (exit status {code}; see {log})"


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read()


def _record(job: Job, status: str, reason: str | None = None, **measured: Any) -> Record:
    cell = job.cell
    values = {
        # The run names its model without what the cell changes of it, so the cell's own names come last.
        **measured,
        "task": cell.task,
        "model": cell.model,
        "seed": cell.seed,
        "preset": cell.preset,
        "status": status,
        "reason": reason,
        "base": cell.base,
        "settings": computed(cell.settings),
    }
    return Record.of(values)
