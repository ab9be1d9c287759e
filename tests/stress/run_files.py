"""Trials with damaged and malicious files in the folder of a finished run."""

import json
import pickle
import random
import shutil
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tests.stress.straight import run_config, train_straight
from tests.stress.trials import Malicious, Trials, silent

from rmaat.errors import UserError
from rmaat.training.checkpoints import numbered_checkpoints, seal
from rmaat.training.config import RunConfig
from rmaat.training.finished_run import open_run
from rmaat.training.inference import predict
from rmaat.training.run import evaluate, train

TEXT = "[MAX 3 [MIN 4 8 ] 2 ]"


def spoil(path: Path, dice: random.Random) -> str:
    """Damage a file; return how."""
    content = bytearray(path.read_bytes())
    kind = dice.choice(["bit", "cut", "empty", "gone", "longer", "zeros", "random", "folder"])
    if kind == "bit" and content:
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    elif kind == "cut":
        del content[dice.randrange(len(content) + 1) :]
    elif kind == "empty":
        content.clear()
    elif kind == "longer":
        content += dice.randbytes(dice.randint(1, 100))
    elif kind == "zeros":
        start = dice.randrange(len(content) + 1)
        content[start : start + 512] = bytes(len(content[start : start + 512]))
    elif kind == "random":
        content = bytearray(dice.randbytes(len(content)))
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind != "gone":
        path.write_bytes(content)
    return kind


def uses(folder: Path, run: RunConfig) -> dict[str, Callable[[], object]]:
    """Return the uses of a finished run by name; each returns what must not change."""

    def losses(name: str, **settings: Any) -> object:
        result = train(replace(run, output_dir=str(folder), **settings))
        return result.metrics["test_loss"], result.metrics["steps"], result.metrics["train_tokens"]

    def begun() -> object:
        output = folder.with_name(f"{folder.name}-next")
        try:
            return train(replace(run, output_dir=str(output), init_from=str(folder), max_steps=2)).metrics["test_loss"]
        finally:
            shutil.rmtree(output, ignore_errors=True)

    return {
        "evaluate": lambda: evaluate(open_run(folder))["test_loss"],
        "predict": lambda: predict(open_run(folder), [TEXT]).probabilities,
        "resume": lambda: losses("resume", resume=True),
        "resume to more steps": lambda: losses("more", resume=True, max_steps=16),
        "init_from": begun,
    }


def damaged(trials: Trials, count: int) -> None:
    """Use finished runs with one damaged file: refused, or the result of the whole run."""
    train_straight(trials)
    original = trials.folder / "straight"
    expected: dict[str, object] = {}
    for number in range(-5, count):
        folder = trials.folder / "damaged"
        shutil.copytree(original, folder)
        actions = uses(folder, run_config(trials.folder))
        # The first five trials are without damage.
        name = list(actions)[number + 5] if number < 0 else trials.dice.choice(list(actions))
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
        path = trials.dice.choice(files)
        what = "nothing" if number < 0 else f"{path.relative_to(folder)}: {spoil(path, trials.dice)}"
        try:
            with silent():
                result = actions[name]()
        except UserError:
            trials.outcomes["refused"] += 1
        except Exception:
            trials.fault(f"{name}, {what}: {traceback.format_exc()[-2000:]}")
        else:
            if result != expected.setdefault(name, result):
                trials.fault(f"{name}, {what}: {result} instead of {expected[name]}")
            else:
                trials.outcomes["equal" if number >= 0 else "whole"] += 1
        shutil.rmtree(folder)


def pickles(trials: Trials, count: int) -> None:
    """Put malicious pickles in place of files: none may be executed."""
    train_straight(trials)
    original, mark = trials.folder / "straight", trials.folder / "executed"
    for _ in range(count):
        folder = trials.folder / "attacked"
        shutil.copytree(original, folder)
        target = trials.dice.choice([folder, *numbered_checkpoints(folder)])
        names = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "model.safetensors"]
        name = trials.dice.choice([*names, "pytorch_model.bin", "scaler.pt", "trainer_state.json"])
        if name == "pytorch_model.bin":
            (target / "model.safetensors").unlink()
        form = trials.dice.choice(["pickle", "torch"])
        if form == "pickle":
            (target / name).write_bytes(pickle.dumps(Malicious(mark)))
        else:
            torch.save(Malicious(mark), target / name)
        if target != folder:
            seal(target)
        elif name in ("model.safetensors", "pytorch_model.bin"):
            metrics = json.loads((folder / "metrics.json").read_text())
            (folder / "metrics.json").write_text(json.dumps({**metrics, "files": {}}))
        for use, action in uses(folder, run_config(trials.folder)).items():
            try:
                with silent():
                    action()
                trials.outcomes["unaffected"] += 1
            except UserError:
                trials.outcomes["refused"] += 1
            except Exception:
                # Whoever forges a sealed checkpoint meets the one line of the outermost handler.
                trials.outcomes["refused by an unexpected error"] += 1
            if mark.exists():
                trials.fault(f"{use}, {target.name}/{name}: executed")
                mark.rmdir()
        shutil.rmtree(folder)
