"""The folder of a run: the names of its files, its preparation, its last checkpoint."""

import json
import shutil
from pathlib import Path

from rmaat.errors import UserError
from rmaat.machine.files import make_writable_folder

RUN_CONFIG = "run.yaml"
METRICS = "metrics.json"
CURVES = "curves.png"
TOKENIZER = "tokenizer"
"""A folder, only in runs with a tokenizer."""
CHECKPOINT_PREFIX = "checkpoint-"


def prepare(folder: Path, bytes_needed: int, *, overwrite: bool, resume: bool) -> None:
    """Make the run's folder, or refuse it before training spends hours.

    Args:
        folder: the output_dir.
        bytes_needed: an upper bound on the size of the run's files at one time.
        overwrite: remove a run that the folder holds.
        resume: accept a run that the folder holds.

    Raises:
        UserError: if the folder cannot be written, its disk is too full, or it holds a run and
            neither `overwrite` nor `resume` is set.
    """
    existing = folder / RUN_CONFIG
    if existing.exists() and not (overwrite or resume):
        raise UserError(
            f"output_dir '{folder}' already holds a run; give another, or --resume true, or --overwrite true"
        )
    try:
        make_writable_folder(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(f"output_dir '{folder}' cannot be written: {error.strerror}; give another folder") from error
    if free < bytes_needed:
        raise UserError(
            f"output_dir '{folder}' has {free / 2**20:.0f} MiB free, the run needs about "
            f"{bytes_needed / 2**20:.0f} MiB for its checkpoints; free some, lower save_total_limit, "
            "or give another folder"
        )
    if overwrite and existing.exists():
        for name in (RUN_CONFIG, METRICS, CURVES, "config.json", "model.safetensors"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / TOKENIZER, ignore_errors=True)
        for checkpoint in folder.glob(f"{CHECKPOINT_PREFIX}*"):
            shutil.rmtree(checkpoint)


def last_complete_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written completely, or None.

    The trainer writes `trainer_state.json` last, so a checkpoint is complete if that file is valid.
    """
    numbered = sorted(
        (path for path in folder.glob(f"{CHECKPOINT_PREFIX}*") if path.name.removeprefix(CHECKPOINT_PREFIX).isdigit()),
        key=lambda path: int(path.name.removeprefix(CHECKPOINT_PREFIX)),
        reverse=True,
    )
    for path in numbered:
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return path
    return None
