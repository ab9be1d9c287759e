"""One cell as one process of `rmaat train`, begun, resumed or found finished; and what became of it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from rmaat.compare.grid.cells import Cell, computed
from rmaat.compare.grid.results import DIVERGED, FAILED, FINISHED, Record
from rmaat.errors import DIVERGENCE, MISTAKE, UserError
from rmaat.training.config import RunConfig
from rmaat.training.folder import CHECKPOINT_PREFIX, METRICS, RUN_CONFIG, last_whole_checkpoint, write_atomically

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
    run = job.cell.run_config(job.folder)
    started = time.monotonic()
    metrics = job.folder / METRICS
    same = _is_same_run(job.folder, run)
    if not (same and metrics.exists()):
        try:
            code = _train(job, environment, stopped, resume=same and last_whole_checkpoint(job.folder) is not None)
        except OSError as error:
            return _record(job, run, FAILED, reason=f"cannot be started: {error}")
        if code is None:
            return None
        if code != 0:
            return _record(job, run, *_failure(code, job.folder / LOG))
    for checkpoint in job.folder.glob(f"{CHECKPOINT_PREFIX}*"):
        shutil.rmtree(checkpoint)
    found = json.loads(metrics.read_text())
    parts = found.pop("data")
    lengths = {part: facts["lengths"] for part, facts in parts.items()}
    examples = {part: facts["examples"] for part, facts in parts.items()}
    wall = round(time.monotonic() - started, 1)
    return _record(job, run, FINISHED, **found, examples=examples, lengths=lengths, wall_seconds=wall)


def steps_of(folder: Path) -> tuple[int, int] | None:
    """Steps done and steps in all, as the run's bar last told; None before it does."""
    try:
        tail = _tail(folder / LOG)
    except OSError:
        return None
    told = BAR.findall(tail)
    return (int(told[-1][0]), int(told[-1][1])) if told else None


def _is_same_run(folder: Path, run: RunConfig) -> bool:
    """Whether the folder holds a run of these settings, begun or finished."""
    try:
        return computed(RunConfig.from_yaml(folder / RUN_CONFIG)) == computed(run)
    except UserError:
        return False


def _train(job: Job, environment: Mapping[str, str], stopped: Callable[[], bool], *, resume: bool) -> int | None:
    """The process's exit status, or None where it was stopped."""
    job.folder.mkdir(parents=True, exist_ok=True)
    settings = {**job.cell.settings, "output_dir": str(job.folder)}
    write_atomically(job.folder / CELL_CONFIG, yaml.safe_dump(settings, sort_keys=False))
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
    lines = [line.strip() for line in re.split(r"[\r\n]+", _tail(log).decode(errors="replace")) if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    if last.startswith(DIVERGENCE):
        return DIVERGED, last.removeprefix(DIVERGENCE)
    if last.startswith(MISTAKE):
        return FAILED, last.removeprefix(MISTAKE)
    if code < 0:
        return FAILED, f"killed by signal {-code}, perhaps for want of memory; see {log}"
    return FAILED, f"{last} (exit status {code}; see {log})"


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read()


def _record(job: Job, run: RunConfig, status: str, reason: str | None = None, **measured: Any) -> Record:
    cell = job.cell
    values = {
        "task": cell.task,
        "model": cell.model,
        "seed": cell.seed,
        "preset": cell.preset,
        "status": status,
        "reason": reason,
        **measured,
        "base": cell.base,
        "config": asdict(run),
    }
    return Record.of(values)
