"""Runs that are killed, damaged, attacked, crowded or out of disk: resumed exactly, or refused.

`python -m tests.stress.runs kills --count 200 --seed 0 --output results/reliability.json` runs one
of the trials below, adds its counts to the file and exits with status 1 if a rule was broken.
Trials: kills, two_processes, changed, damaged, pickles, disk, together. Linux only.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import psutil
from tests.stress.run_files import damaged, pickles
from tests.stress.straight import check_equal, run_config, train_straight
from tests.stress.trials import Kinds, Trials, forked, run_program, wait

from rmaat.cli.main import main
from rmaat.training import run_folder
from rmaat.training.checkpoints import SEAL
from rmaat.training.config import RunConfig
from rmaat.training.run import train
from rmaat.training.stages import MAY_DIFFER

TEXT = "[MAX 3 [MIN 4 8 ] 2 ]"


def kills(trials: Trials, count: int) -> None:
    """Kill single-process runs at random moments; begin one in four over a finished run."""
    seconds = train_straight(trials)
    killed = number = 0
    log = trials.folder / "log"
    while killed < count:
        number += 1
        run = replace(run_config(trials.folder), output_dir=str(trials.folder / f"kills-{number}"))
        if trials.dice.random() < 0.25:
            shutil.copytree(trials.folder / "straight", run.output_dir)
            stored = forked(lambda run=run: train(replace(run, seed=9, overwrite=True)), log)
            assert wait(stored) == 0, log.read_text()
            run = replace(run, overwrite=True)
        while True:
            pid = forked(lambda run=run: train(run), log)
            status = wait(pid, trials.dice.uniform(0, seconds) if killed < count else None)
            if status is None:
                os.kill(pid, signal.SIGKILL)
                wait(pid)
                killed += 1
                begun = (Path(run.output_dir) / run_folder.RUN_CONFIG).exists()
                if not run.overwrite or (begun and stored_seed(run) == run.seed):
                    run = replace(run, overwrite=False, resume=True)
            elif status == 2 and "use --overwrite" in log.read_text():
                trials.outcomes["refused, overwritten"] += 1
                run = replace(run, overwrite=True, resume=False)
            elif status:
                trials.fault(f"run {number}: {log.read_text()[-2000:]}")
                break
            else:
                check_equal(trials, Path(run.output_dir), f"run {number}")
                break
        shutil.rmtree(run.output_dir)
    trials.outcomes["kills"] = killed


def stored_seed(run: RunConfig) -> int:
    """Return the seed of the run in a folder."""
    return RunConfig.from_yaml(Path(run.output_dir) / run_folder.RUN_CONFIG).seed


def two_processes(trials: Trials, count: int) -> None:
    """Kill runs of two processes: the whole group, one rank, or torchrun alone."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "rmaat"]

    def start(name: str, flag: str, log: Path) -> "subprocess.Popen[bytes]":
        config = trials.folder / f"{name}.yaml"
        settings = replace(
            run_config(trials.folder), output_dir=str(trials.folder / name), per_device_train_batch_size=8
        )
        config.write_text(settings.to_yaml())
        command = [*launch, "train", "--config", str(config), *([flag] if flag else [])]
        with log.open("wb") as stream:
            return subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)

    train_straight(trials)
    shutil.rmtree(trials.folder / "straight")
    log = trials.folder / "log"
    started = time.monotonic()
    assert start("straight", "", log).wait() == 0, log.read_text()
    seconds = time.monotonic() - started
    killed = number = 0
    while killed < count:
        number += 1
        name, flag = f"two-{number}", ""
        while True:
            process = start(name, flag, log)
            with contextlib.suppress(subprocess.TimeoutExpired):
                # Most of the time is start-up, so kill later rather than earlier.
                process.wait(trials.dice.uniform(0.4 * seconds, seconds) if killed < count else None)
            if process.returncode is None:
                kind = trials.dice.choice(["group", "rank", "launcher"])
                ranks = psutil.Process(process.pid).children()
                if kind == "group":
                    os.killpg(process.pid, signal.SIGKILL)
                elif kind == "launcher" or not ranks:
                    process.kill()
                else:
                    trials.dice.choice(ranks).kill()
                process.wait()
                killed += 1
                trials.outcomes[f"kills of the {kind}"] += 1
                # The next command follows at once, while the ranks may still live.
                flag = "--resume"
                if kind == "group":
                    for rank in ranks:
                        with contextlib.suppress(psutil.NoSuchProcess):
                            rank.kill()
            elif process.returncode and "another run is writing" in log.read_text(errors="replace"):
                trials.outcomes["refused while the ranks lived"] += 1
            elif process.returncode:
                trials.fault(f"run {number}: {log.read_text(errors='replace')[-2000:]}")
                break
            else:
                check_equal(trials, trials.folder / name, f"run {number}")
                break
        shutil.rmtree(trials.folder / name)


OTHERS: dict[str, Any] = {
    "attention_type": "softmax",
    "dataset": "listops",
    "lr_scheduler_type": "linear",
    "metric_for_best_model": "loss",
    "retention_schedule": "none",
    "retention_form": "relative",
    "memory_layout": "back",
    "readout": "last",
    "input_type": "values",
    "replay_budget": 1,
    "replay_buffer": "cpu",
    "hidden_act": "relu",
    "model": "rmaat",
    "recipe": "listops_short",
    "bf16": True,
    "num_segments": 4,
    "truncated_segments": 1,
    "macro_model": {"tau_long": 60},
}
"""Other values of settings for which a rule gives none."""


def other_value(name: str, value: Any, dice: random.Random) -> Any:
    """Return another value of a setting, of the same type."""
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + dice.choice([1, 2, 8])
    if isinstance(value, float):
        return value * dice.choice([0.5, 0.9])
    return dice.choice([1, "another"])


def changed(trials: Trials, count: int) -> None:
    """Resume with one random setting changed: refused, or equal to the straight run."""
    train_straight(trials)
    template = trials.folder / "template"
    pid = forked(lambda: train(replace(run_config(trials.folder), output_dir=str(template))), trials.folder / "log")
    while not (template / "checkpoint-6" / SEAL).exists():
        assert wait(pid, 0.01) is None, "the run must be killed before it ends"
    os.kill(pid, signal.SIGKILL)
    wait(pid)
    names = [field.name for field in fields(RunConfig) if field.name not in ("output_dir", "resume", "overwrite")]
    for number in range(count):
        name = trials.dice.choice(names)
        value = other_value(name, getattr(run_config(trials.folder), name), trials.dice)
        folder = trials.folder / f"changed-{number}"
        shutil.copytree(template, folder)
        log = trials.folder / "log"
        run = replace(run_config(trials.folder), output_dir=str(folder), resume=True, **{name: value})
        status = wait(forked(lambda run=run: train(run), log))
        if status == 2:
            trials.outcomes["refused"] += 1
        elif status:
            trials.fault(f"{name}={value}: {log.read_text()[-2000:]}")
        elif name in ("max_steps", "test_examples"):
            trials.outcomes["accepted, with its own result"] += 1
        elif name in MAY_DIFFER:
            check_equal(trials, folder, f"{name}={value}")
        else:
            trials.fault(f"{name}={value} was accepted")
        shutil.rmtree(folder)


def disk(trials: Trials, count: int) -> None:
    """Fill the disk at random moments: one line, and a resumed run that equals the straight one."""
    seconds = train_straight(trials)
    mount = trials.folder / "disk"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(mount)], check=True)
    log = trials.folder / "log"
    try:
        for number in range(count):
            run = replace(run_config(trials.folder), output_dir=str(mount / "run"))
            config = trials.folder / "disk.yaml"
            config.write_text(run.to_yaml())

            def command(*flags: str, config: Path = config) -> int:
                return forked(lambda: os._exit(main(["train", "--config", str(config), *flags])), log)

            pid = command()
            status = wait(pid, trials.dice.uniform(0, seconds))
            filler = mount / "filler"
            with filler.open("wb", buffering=0) as stream:
                while status is None:
                    with contextlib.suppress(OSError):
                        while True:
                            stream.write(bytes(4096))
                    status = wait(pid, 0.02)
            filler.unlink()
            output = log.read_text()
            if status == 0:
                trials.outcomes["finished before"] += 1
            elif "Traceback" in output or status != 2:
                trials.fault(f"trial {number}: status {status}: {output[-2000:]}")
            else:
                trials.outcomes["one line"] += 1
            pid = command("--resume")
            if wait(pid):
                trials.fault(f"trial {number}, resumed: {log.read_text()[-2000:]}")
            else:
                check_equal(trials, mount / "run", f"trial {number}")
            shutil.rmtree(mount / "run")
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def together(trials: Trials, count: int) -> None:
    """Start two or three processes at once on one cache, one output_dir and one grid."""
    train_straight(trials)
    for number in range(count):
        processes = 2 + number % 2
        logs = [trials.folder / f"log-{i}" for i in range(processes)]
        shutil.rmtree(trials.folder / "data" / ".rmaat_cache")
        folders = [trials.folder / f"together-{number}-{i}" for i in range(processes)]
        pids = [
            forked(lambda folder=folder: train(replace(run_config(trials.folder), output_dir=str(folder))), log)
            for folder, log in zip(folders, logs, strict=True)
        ]
        for pid, folder, log in zip(pids, folders, logs, strict=True):
            if wait(pid):
                trials.fault(f"one cache: {log.read_text()[-2000:]}")
            else:
                check_equal(trials, folder, "one cache")
        folder = trials.folder / f"one-{number}"
        flags = [{"overwrite": i % 2 == 0, "resume": i % 2 == 1} for i in range(processes)]
        runs = [replace(run_config(trials.folder), output_dir=str(folder), **flag) for flag in flags]
        pids = [forked(lambda run=run: train(run), log) for run, log in zip(runs, logs, strict=True)]
        statuses = [wait(pid) for pid in pids]
        for status, log in zip(statuses, logs, strict=True):
            if status not in (0, 2):
                trials.fault(f"one output_dir: {log.read_text()[-2000:]}")
        trials.outcomes["refused"] += statuses.count(2)
        check_equal(trials, folder, "one output_dir")
        grid = trials.folder / f"grid-{number}"
        words = f"compare accuracy --preset smoke --models rmaat --seeds 1 --max_steps 4 --workers 1 --output {grid}"
        command = [sys.executable, "-m", "rmaat", *words.split(), "--data_dir", str(trials.folder / "data")]
        running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in logs]
        ended = [(process.communicate()[1].decode(), process.returncode) for process in running]
        finished = [code for _, code in ended].count(0)
        refused = sum("another grid is writing" in text for text, _ in ended)
        trials.outcomes["grids refused"] += refused
        trials.outcomes["grids finished"] += finished
        if not finished or finished + refused < processes:
            trials.fault(f"one grid: {ended}")


KINDS: Kinds = {
    "kills": kills,
    "two_processes": two_processes,
    "changed": changed,
    "damaged": damaged,
    "pickles": pickles,
    "disk": disk,
    "together": together,
}


if __name__ == "__main__":
    sys.exit(run_program("tests.stress.runs", __doc__, KINDS))
