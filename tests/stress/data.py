"""Data that is killed, mutated, attacked or crowded: equal to undisturbed data, or refused.

`python -m tests.stress.data mutated --count 5000 --seed 0 --output results/reliability.json` runs
one of the trials below, adds its counts to the file and exits with status 1 if a rule was broken.
Trials: data_kills, mutated, data_pickles, caches. Linux only.
"""

import os
import pickle
import random
import re
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tests.stress.attacks import ATTACKS
from tests.stress.mutations import mutate
from tests.stress.samples import SAMPLES, Example, Sample
from tests.stress.trials import Kinds, Malicious, Trials, forked, run_program, silent, wait

from rmaat.cli.main import main
from rmaat.errors import LONGEST_MESSAGE
from rmaat.tasks import TASKS, Task, cache, images, load
from rmaat.tasks.reader import TokenReader

LONGEST_SECONDS = 20
MOST_MEMORY = 2**30
"""Limits of building one data set; the memory is beyond what the process has before."""

UNCUT = 2**25
"""A length that no text of a sample reaches."""

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


def build_sample(sample: Sample, folder: Path) -> dict[str, list[Example]]:
    """Build and open the data set of a sample; see `build`."""
    return build(sample.task(folder), folder)


def resident(field: str) -> int:
    """Return a size of this process in bytes: "VmRSS" now, "VmHWM" the largest."""
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"{field}:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024


def build_mutated(
    sample: Sample, folder: Path, whole: Sequence[Example] | None, length: int | None, memory: Path
) -> None:
    """Build the data set of a mutated sample, and write how much memory that took into a file.

    Args:
        sample: the sample.
        folder: its files, one of them mutated.
        whole: the sample's rows if they must not change, else None.
        length: see `load`; None cuts long texts, which are then not compared with the files.
        memory: the file.

    Raises:
        UserError: if the data are refused.
        Fault: if a row is not valid.
    """
    before = resident("VmRSS")
    # Beyond this much the machine would be in danger.
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + 4 * MOST_MEMORY, resource.RLIM_INFINITY))
    try:
        parts = build(sample.task(folder), folder, length)
    finally:
        memory.write_text(str(resident("VmHWM") - before))
    examples = [example for part in parts.values() for example in part]
    if whole is not None and examples != whole:
        raise Fault("damage that a checksum reveals changed the rows")
    mistake = sample.mistake(folder, examples) if length is not None else None
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
        parts = build(sample.task(trial), trial, max_seq_len=UNCUT)
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
    length = None if how == "bomb" else UNCUT
    whole = rows[name] if checked else None
    pid = forked(partial(build_mutated, sample, folder, whole, length, memory), log)
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
        trials.fault(f"{name}, seed {seed}, {path.relative_to(folder)}, {how}, {seconds:.1f} s: {problem}")
    shutil.rmtree(folder)


def unclean(message: str, path: Path, folder: Path) -> str | None:
    """Return what is wrong with a message, which must be one line that names the file."""
    line = message.rstrip("\n")
    if not line.isprintable() or len(line) > LONGEST_MESSAGE:
        return f"not one clean line: {line!r}"
    names = [path.name, *(parent for parent in path.parents if parent.is_relative_to(folder) and parent != folder)]
    if not any(str(name) in line for name in names):
        return f"does not name the file: {line}"
    return None


GENERATED: Mapping[str, Sequence[str]] = {
    "listops_short": ["--num_train", "200", "--num_val", "20", "--num_test", "20"],
    "recall": ["--num_train", "400", "--num_val", "40", "--num_test", "40"],
    "remember": ["--num_train", "400", "--num_val", "40", "--num_test", "40"],
    "stories": ["--num_train", "60", "--num_val", "10", "--num_test", "10"],
    "pathfinder32_easy": ["--num_train", "80", "--num_val", "10", "--num_test", "10"],
}
"""Flags of `rmaat data` for small data of each task."""


def data_command(task: str, folder: Path, *flags: str) -> None:
    """Run `rmaat data` and end the process with its status."""
    os._exit(main(["data", task, "--data_dir", str(folder), *GENERATED[task], *flags]))


def warm(folder: Path) -> None:
    """Import and compile in this process what its children will use."""
    with silent():
        for task, flags in GENERATED.items():
            assert main(["data", task, "--data_dir", str(folder), *flags]) == 0


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder by its path, without locks and checksums.

    The name of a file of checksums depends on the time and the place.
    """
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock" and path.parent.name != "checksums" and path.name != ".lock"
    }


def leftovers(folder: Path) -> list[str]:
    """Return the names of files and folders that only an interrupted command needs."""
    return [
        path.name
        for path in folder.rglob("*")
        if path.name not in (".lock", ".rmaat_cache") and (path.name.startswith(".") or "partial" in path.name)
    ]


def data_kills(trials: Trials, count: int) -> None:
    """Kill `rmaat data` at random moments; begin one in four over data of another seed."""
    log = trials.folder / "log"
    straight: dict[str, dict[str, bytes]] = {}
    other: dict[str, dict[str, bytes]] = {}
    rows: dict[str, dict[str, list[Example]]] = {}
    seconds: dict[str, float] = {}
    warm(trials.folder / "warm")
    for task in GENERATED:
        for results, flags in ((other, ["--seed", "9"]), (straight, [])):
            folder = trials.folder / f"{task}-{len(flags)}"
            started = time.monotonic()
            assert wait(forked(partial(data_command, task, folder, *flags), log)) == 0, log.read_text()
            seconds[task] = time.monotonic() - started
            results[task] = contents(folder)
        rows[task] = build(TASKS[task], folder)
    killed = number = 0
    while killed < count:
        number += 1
        task = trials.dice.choice(list(GENERATED))
        folder = trials.folder / "killed"
        flags = []
        if trials.dice.random() < 0.25:
            shutil.copytree(trials.folder / f"{task}-2", folder)
            flags = ["--seed", "0", "--overwrite", "true"]
        allowed = [straight[task], *([other[task]] if flags else [])]
        while True:
            pid = forked(partial(data_command, task, folder, *flags), log)
            status = wait(pid, trials.dice.uniform(0, seconds[task]) if killed < count else None)
            if status is None:
                os.kill(pid, signal.SIGKILL)
                wait(pid)
                killed += 1
                problem = half_written(folder, allowed)
                if problem is not None:
                    trials.fault(f"{task}, data set {number}, killed: {problem}")
                continue
            found = contents(folder)
            # A cached data set of the former files stays; the key has its content.
            expected = {**{name: content for name, content in allowed[-1].items() if "cache" in name}, **straight[task]}
            if status:
                trials.fault(f"{task}, data set {number}: {log.read_text()[-2000:]}")
            elif leftovers(folder):
                trials.fault(f"{task}, data set {number}: {leftovers(folder)} stay")
            elif found != expected:
                unequal = [name for name in expected.keys() | found if expected.get(name) != found.get(name)]
                trials.fault(f"{task}, data set {number}: {unequal} differ")
            elif build(TASKS[task], folder) != rows[task]:
                trials.fault(f"{task}, data set {number}: the rows differ")
            else:
                trials.outcomes["equal"] += 1
            break
        shutil.rmtree(folder)
    trials.outcomes["kills"] = killed


def half_written(folder: Path, allowed: Sequence[Mapping[str, bytes]]) -> str | None:
    """Return a file that a reader may open and that no whole data set has."""
    visible = {
        name: content
        for name, content in contents(folder).items()
        if not any((part.startswith(".") and part != ".rmaat_cache") or "partial" in part for part in Path(name).parts)
    }
    for name, content in visible.items():
        if not any(content == whole.get(name) for whole in allowed):
            return f"{name} is not whole"
    # Files of two seeds must never stand side by side.
    files = {name: content for name, content in visible.items() if ".rmaat_cache" not in name}
    if not any(all(whole.get(name) == content for name, content in files.items()) for whole in allowed):
        return f"{sorted(files)} are of different data"
    return None


def data_pickles(trials: Trials, count: int) -> None:
    """Put malicious pickles into every file that could hold one: none may be executed."""
    rows = write_samples(trials.folder / "samples")
    log, mark = trials.folder / "log", trials.folder / "executed"
    # The attack must be able to succeed.
    pickle.loads(pickle.dumps(Malicious(mark)))
    mark.rmdir()
    for _ in range(count):
        for name, attack in [(name, attack) for name in rows for attack in ATTACKS]:
            sample = SAMPLES[name]
            folder = shutil.copytree(trials.folder / "samples" / name, trials.folder / "trial")
            files = [p for p in folder.rglob("*") if p.is_file() and p.name not in sample.skipped]
            path = trials.dice.choice(sorted(files))
            if ATTACKS[attack](path, mark, trials.dice):
                status = wait(forked(partial(build_sample, sample, folder), log), LONGEST_SECONDS)
                if mark.exists():
                    trials.fault(f"{path.relative_to(folder)}, {attack}: executed")
                    mark.rmdir()
                elif status == 2:
                    trials.outcomes["refused"] += 1
                elif status == 0:
                    trials.outcomes["unaffected"] += 1
                else:
                    trials.fault(f"{path.relative_to(folder)}, {attack}: {log.read_text()[-1500:]}")
            shutil.rmtree(folder)


def caches(trials: Trials, count: int) -> None:
    """Start two or three processes at once on one cache and on one folder of generated data."""
    write_samples(trials.folder / "samples")
    warm(trials.folder / "warm")
    names = ["files .jsonl", "listops", "imdb folder", "cifar10 batches", "stories"]
    for number in range(count):
        processes = 2 + number % 2
        name = names[number % len(names)]
        folder = shutil.copytree(trials.folder / "samples" / name, trials.folder / "crowded")
        expected = build(SAMPLES[name].task(folder), folder)
        shutil.rmtree(folder / ".rmaat_cache")
        builds = crowd(trials, processes, partial(built_once, name, folder, expected))
        if builds != 1:
            trials.fault(f"{name}: {builds} processes built the entry")
        if leftovers(folder):
            trials.fault(f"{name}: {leftovers(folder)} stay")
        shutil.rmtree(folder)
        task = list(GENERATED)[number % len(GENERATED)]
        made = crowd(trials, processes, partial(data_command, task, folder))
        if made != 1:
            trials.fault(f"rmaat data {task}: {made} processes made the files")
        if leftovers(folder):
            trials.fault(f"rmaat data {task}: {leftovers(folder)} stay")
        shutil.rmtree(folder)


def crowd(trials: Trials, processes: int, work: Callable[[], None]) -> int:
    """Do the same in several processes at once; return how many of them printed "generated"."""
    logs = [trials.folder / f"log-{i}" for i in range(processes)]
    start = time.monotonic() + 0.2

    def wait_and_work() -> None:
        time.sleep(max(0.0, start - time.monotonic()))
        work()

    pids = [forked(wait_and_work, log) for log in logs]
    for status, log in zip([wait(pid) for pid in pids], logs, strict=True):
        if status:
            trials.fault(log.read_text()[-2000:])
        else:
            trials.outcomes["equal"] += 1
    return sum("generated" in log.read_text() for log in logs)


def built_once(name: str, folder: Path, expected: dict[str, list[Example]]) -> None:
    """Build a sample's data set, print "generated" if this process built it, and compare it."""
    original = cache._build_entry

    def counted(*arguments: Any) -> None:
        print("generated", flush=True)
        original(*arguments)

    cache._build_entry = counted
    if build(SAMPLES[name].task(folder), folder) != expected:
        raise Fault("the rows differ")


KINDS: Kinds = {
    "data_kills": data_kills,
    "mutated": mutated,
    "data_pickles": data_pickles,
    "caches": caches,
}


if __name__ == "__main__":
    sys.exit(run_program("tests.stress.data", __doc__, KINDS))
