"""The stages of a run: the settings and the data of each part, from its first step on.

A run has one stage, and one more for each time that it was resumed.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rmaat.errors import UserError
from rmaat.machine.files import write_text
from rmaat.settings import SAME_RESULTS
from rmaat.training.config import RunConfig

STAGES = "stages.json"

MAY_DIFFER = (
    *("max_steps", "num_train_epochs", "min_steps", "logging_steps", "save_total_limit", "test_examples"),
    *("per_device_eval_batch_size", "dataloader_num_workers", "wandb", "wandb_run_name", "calibration"),
    *("recipe", "output_dir", "data_dir", "train_file", "validation_file", "test_file", "tokenizer"),
    *("resume", "overwrite"),
    *SAME_RESULTS,
)
"""Settings that may differ when a run is resumed.

They do not change what is learned up to a step. The files that some of them name are compared by
content. With a curriculum, dataloader_num_workers must not differ.
"""


@dataclass(frozen=True)
class Stage:
    """The settings and the data of a part of a run.

    Attributes:
        step: the step after which it begins.
        settings: all settings of the run config.
        data: the digest of the data set.
        processes: the number of processes.
        command: the command line.
        commit: the version of this package.
        machine: processor, system and versions.
        init_from_training: the training that the weights of init_from had, see
            `rmaat.training.results.previous_training`.
    """

    step: int
    settings: dict[str, Any]
    data: str
    processes: int
    command: str
    commit: str
    machine: str
    init_from_training: dict[str, Any] | None = None


def read_stages(folder: Path) -> list[Stage]:
    """Return the stages of the run in a folder.

    Raises:
        UserError: if their file is missing or damaged.
    """
    path = folder / STAGES
    try:
        return [Stage(**stage) for stage in json.loads(path.read_bytes())]
    except FileNotFoundError:
        problem = "is missing"
    except (OSError, ValueError, TypeError):
        problem = "is damaged"
    raise UserError(
        f"'{path}' {problem}, and without it settings and data of the run cannot be compared; "
        "train anew with --overwrite"
    )


def check_same_run(stage: Stage, former: Stage, folder: Path) -> None:
    """Raise `UserError` if a resumed run would not continue what the former stage began.

    Args:
        stage: the settings and the data of the resumed run.
        former: those of the run in the folder.
        folder: the run's folder.
    """
    may_differ = set(MAY_DIFFER)
    if former.settings.get("objective") == "masked":
        # Which positions an evaluation masks depends on its batches.
        may_differ.remove("per_device_eval_batch_size")
    if former.settings.get("curriculum"):
        may_differ.remove("dataloader_num_workers")
    # A setting that the former stage's version lacked has today's default, which changes no result.
    former = replace(former, settings={**asdict(RunConfig()), **former.settings})
    # Compare every setting that is not listed, so that a new setting is compared without being added.
    here, there = (_flat(x) for x in (stage, former))
    differing = [name for name in here if name not in may_differ and here[name] != there.get(name)]
    if not differing:
        return
    if differing == ["data"]:
        raise UserError(
            f"resume: the data of '{folder}' has changed since the run began; use --overwrite to begin anew"
        )
    changes = ", ".join(f"{name} is {here[name]} instead of {there.get(name)}" for name in differing if name != "data")
    raise UserError(
        f"resume: {changes}; the run in '{folder}' cannot continue with that: give what it began with, "
        "or use --overwrite to begin anew"
    )


def _flat(stage: Stage) -> dict[str, Any]:
    return {**stage.settings, "processes": stage.processes, "data": stage.data}


def append_stage(folder: Path, stage: Stage) -> None:
    """Store a stage after those that begin before it.

    A stage that begins at the same step or later left nothing that the run still has.
    """
    former = [] if stage.step == 0 else [old for old in read_stages(folder) if old.step < stage.step]
    write_text(folder / STAGES, json.dumps([asdict(x) for x in (*former, stage)], indent=2) + "\n", sync=True)


def stage_changes(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Return the step, command, commit and machine of each stage, and the settings that changed.

    A changed setting has its former and its new value.
    """
    changes: list[dict[str, Any]] = []
    for former, stage in zip((None, *stages), stages, strict=False):
        origin = {"step": stage.step, "command": stage.command, "commit": stage.commit, "machine": stage.machine}
        settings = {} if former is None else former.settings
        changed = {
            name: [settings[name], value]
            for name, value in stage.settings.items()
            if name in settings and settings[name] != value and name not in ("resume", "overwrite")
        }
        changes.append({**origin, "changed": changed})
    return changes
