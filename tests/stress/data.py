"""Data that is killed, mutated, attacked or crowded: equal to undisturbed data, or refused.

`python -m tests.stress.data mutated --count 5000 --seed 0 --output results/reliability.json` runs
one of the trials below, adds its counts to the file and exits with status 1 if a rule was broken.
Trials: data_kills, mutated, data_pickles, caches. Linux only.
"""

import os
import random
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tests.stress.mutations import mutate
from tests.stress.samples import SAMPLES, Example, Sample
from tests.stress.trials import Kinds, Trials, forked, run_program, wait

from rmaat.errors import LONGEST_MESSAGE
from rmaat.tasks import Task, images, load
from rmaat.tasks.reader import TokenReader

LONGEST_SECONDS = 20
MOST_MEMORY = 2**30
"""Limits of building one data set; the memory is beyond what the process has before."""

HELD_OUT = 4
"""Images held out for validation, instead of 5,000: samples are small."""


class Fault(Exception):  # noqa: N818
    """A rule that was broken."""


def build(task: Task, folder: Path, max_seq_len: int | None = None) -> dict[str, list[Example]]:
    """Build and open a data set; return its examples by part.

    Raises:
        UserError: if the data are refused.
        Fault: if a row is not valid.
    """
    dataset = load(task, folder, max_seq_len=max_seq_len)
    info, length = task.info, max_seq_len or task.info.max_seq_len
    if set(dataset) != {"train", "validation", "test"}:
        raise Fault(f"the parts are {set(dataset)}")
    parts: dict[str, list[Example]] = {}
    for name, part in dataset.items():
        reader = TokenReader(part)
        if not len(reader) or part.features["labels"].names != list(info.label_names):
            raise Fault(f"{name}: {len(reader)} rows, labels {part.features['labels'].names}")
        parts[name] = []
        for i in range(len(reader)):
            row = reader[i]
            if not 0 <= row["labels"] < len(info.label_names):
                raise Fault(f"{name}, row {i}: label {row['labels']}")
            for column in info.columns:
                ids = row[column]
                if not 1 <= len(ids) <= length or ids.min() < 0 or ids.max() >= info.vocab_size:
                    raise Fault(f"{name}, row {i}: {len(ids)} ids, from {ids.min()} to {ids.max()}")
                if info.image_shape is not None and len(ids) != np.prod(info.image_shape):
                    raise Fault(f"{name}, row {i}: {len(ids)} pixels")
            texts = tuple(row[column].tobytes() for column in info.columns)
            parts[name].append((texts, info.label_names[row["labels"]]))
    return parts


def resident(field: str) -> int:
    """Return a size of this process in bytes: "VmRSS" now, "VmHWM" the largest."""
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"{field}:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024


def build_mutated(sample: Sample, folder: Path, whole: Sequence[Example] | None, memory: Path) -> None:
    """Build the data set of a mutated sample; `whole` has its rows if they must not change.

    Raises:
        UserError: if the data are refused.
        Fault: if a row is not valid.
    """
    before = resident("VmRSS")
    # Beyond this much the machine would be in danger.
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + 4 * MOST_MEMORY, resource.RLIM_INFINITY))
    try:
        # Long enough that no text is cut.
        parts = build(sample.task(folder), folder, max_seq_len=2**25)
    finally:
        memory.write_text(str(resident("VmHWM") - before))
    examples = [example for part in parts.values() for example in part]
    if whole is not None and examples != whole:
        raise Fault("damage that a checksum reveals changed the rows")
    mistake = sample.mistake(folder, examples)
    if mistake is not None:
        raise Fault(mistake)


def write_samples(folder: Path) -> dict[str, list[Example]]:
    """Write all samples; return the rows of each."""
    images.VALIDATION = HELD_OUT
    os.environ["HF_HUB_OFFLINE"] = "1"
    rows = {}
    for name, sample in SAMPLES.items():
        (folder / name).mkdir(parents=True)
        sample.write(folder / name)
        trial = shutil.copytree(folder / name, folder / "whole")
        parts = build(sample.task(trial), trial, max_seq_len=2**25)
        rows[name] = [example for part in parts.values() for example in part]
        assert sample.mistake(trial, rows[name]) is None, (name, sample.mistake(trial, rows[name]))
        shutil.rmtree(trial)
    return rows


def mutated(trials: Trials, count: int) -> None:
    """Build data sets from samples with one mutated file: valid rows, or one line that names it."""
    rows = write_samples(trials.folder / "samples")
    names = list(SAMPLES)
    for number in range(count):
        # Each trial has its own seed, so that it can be repeated alone.
        seed = trials.dice.getrandbits(32)
        try_mutation(trials, names[number % len(names)], seed, rows)


def try_mutation(trials: Trials, name: str, seed: int, rows: Mapping[str, list[Example]]) -> None:
    """Mutate one file of a copy of a sample and build its data set in a child."""
    dice, sample = random.Random(seed), SAMPLES[name]
    folder = shutil.copytree(trials.folder / "samples" / name, trials.folder / "trial")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in sample.skipped)
    path = dice.choice(files)
    how = mutate(path, dice)
    checked = how.startswith("damage") and path.suffix in (".gz", ".xz", ".npz")
    log, memory = trials.folder / "log", trials.folder / "memory"
    memory.write_text("0")
    started = time.monotonic()
    pid = forked(lambda: build_mutated(sample, folder, rows[name] if checked else None, memory), log)
    status = wait(pid, LONGEST_SECONDS)
    if status is None:
        os.kill(pid, signal.SIGKILL)
        wait(pid)
    output = log.read_text(errors="replace")
    problem = None
    if status is None:
        problem = f"no end after {LONGEST_SECONDS} s"
    elif status == 2:
        problem = unclean(output.rpartition("UserError: ")[2], path, folder)
        trials.outcomes["refused in one line"] += problem is None
    elif status:
        problem = output[-1500:]
    else:
        trials.outcomes["valid rows"] += 1
    if int(memory.read_text()) > MOST_MEMORY:
        problem = f"{problem or ''} memory of {int(memory.read_text()) / 2**20:.0f} MiB"
    if problem is not None:
        seconds = time.monotonic() - started
        trials.faults.append(f"{name}, seed {seed}, {path.relative_to(folder)}, {how}, {seconds:.1f} s: {problem}")
    shutil.rmtree(folder)


def unclean(message: str, path: Path, folder: Path) -> str | None:
    """Return what is wrong with a message, which must be one line that names the file."""
    line = message.rstrip("\n")
    if not line.isprintable() or len(line) > LONGEST_MESSAGE:
        return f"not one clean line: {line!r}"
    names = [path, *(parent for parent in path.parents if parent.is_relative_to(folder) and parent != folder)]
    if not any(str(name) in line for name in names):
        return f"does not name the file: {line}"
    return None


KINDS: Kinds = {
    "mutated": mutated,
}


if __name__ == "__main__":
    sys.exit(run_program("tests.stress.data", __doc__, KINDS))
