"""The straight run of the stress programs, and the comparison of other runs with it."""

import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from tests.stress.trials import Trials, forked, wait

from rmaat.cli.main import main
from rmaat.training.config import RunConfig
from rmaat.training.run import train


def run_config(folder: Path) -> RunConfig:
    """Return a run of 12 steps, a checkpoint every 2, whose learning rate ignores its length."""
    return RunConfig(
        dataset="listops_short",
        data_dir=str(folder / "data"),
        output_dir=str(folder / "straight"),
        max_seq_len=192,
        num_segments=3,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_steps=12,
        eval_steps=2,
        logging_steps=2,
        warmup_steps=2,
        lr_scheduler_type="constant_with_warmup",
        per_device_train_batch_size=16,
        per_device_eval_batch_size=16,
    )


def check_equal(trials: Trials, folder: Path, what: str) -> None:
    """Compare a finished run with the straight one."""
    problem = difference(trials.folder / "straight", folder)
    if problem:
        trials.fault(f"{what}: {problem}")
    else:
        trials.outcomes["equal"] += 1


def difference(one: Path, other: Path) -> str | None:
    """Return how two finished runs differ in weights, losses and tokens, or None."""
    metrics, others = (json.loads((folder / "metrics.json").read_text()) for folder in (one, other))
    for name in ("steps", "best_step", "test_loss", "eval_loss", "test_accuracy", "train_tokens"):
        if metrics[name] != others[name]:
            return f"{name} is {others[name]} instead of {metrics[name]}"
    weights, other_weights = (load_file(folder / "model.safetensors") for folder in (one, other))
    unequal = [name for name, tensor in weights.items() if not torch.equal(tensor, other_weights[name])]
    return f"{unequal[0]} differs" if unequal else None


def train_straight(trials: Trials) -> float:
    """Make the data and the straight run; return the seconds that the run took in a child."""
    sizes = ["--num_train", "256", "--num_val", "48", "--num_test", "40"]
    assert main(["data", "listops_short", "--data_dir", str(trials.folder / "data"), *sizes]) == 0
    for again in (False, True):
        started = time.monotonic()
        pid = forked(
            lambda again=again: train(replace(run_config(trials.folder), overwrite=again)), trials.folder / "log"
        )
        assert wait(pid) == 0, (trials.folder / "log").read_text()
    return time.monotonic() - started
