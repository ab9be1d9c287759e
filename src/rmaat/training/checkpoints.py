"""Checkpoints of a run: sealed when they are whole, verified before they are used, pruned."""

import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from rmaat.errors import UserError
from rmaat.machine.files import delete, file_checksum, sync_to_disk, write_text

PREFIX = "checkpoint-"
TRAINER_STATE = "trainer_state.json"

SEAL = "files.json"
"""A file in each checkpoint with the size and SHA-256 of all other files, written last."""

FileRecords = dict[str, dict[str, int | str]]
"""The size in bytes and the SHA-256 of files, by their paths within a folder."""

logger = logging.getLogger(__name__)


def checkpoint_at(folder: Path, step: int) -> Path:
    """Return the path of a run's checkpoint after so many steps."""
    return folder / f"{PREFIX}{step}"


def numbered_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a run's folder, whole or not, the newest first."""
    numbered = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(numbered, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """Return the number of steps before a checkpoint."""
    return int(checkpoint.name.removeprefix(PREFIX))


def seal(checkpoint: Path) -> None:
    """Write the sizes and checksums of a checkpoint's files, and wait until all are on the disk."""
    delete(checkpoint / SEAL)
    files = sorted(path for path in checkpoint.iterdir() if path.is_file())
    # The seal must not reach the disk before the files for which it stands.
    for path in (*files, checkpoint):
        sync_to_disk(path)
    write_text(checkpoint / SEAL, json.dumps(file_records(checkpoint, files), indent=2) + "\n", sync=True)
    for path in (checkpoint, checkpoint.parent):
        sync_to_disk(path)


def file_records(folder: Path, files: Iterable[Path]) -> FileRecords:
    """Return the size in bytes and the SHA-256 of each file, by its path within the folder."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_checksum(path)}
        for path in files
    }


def first_damage(folder: Path, records: FileRecords) -> str | None:
    """Return what is wrong with the first file that differs from its record, or None.

    Args:
        folder: the folder of the files.
        records: their sizes and checksums, as `file_records` returns them.
    """
    for name, record in records.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != record["bytes"]:
            return f"{name} has {path.stat().st_size:,} bytes instead of {record['bytes']:,}"
        if file_checksum(path) != record["sha256"]:
            return f"the content of {name} has changed"
    return None


def checkpoint_damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a sealed checkpoint, or None if it is whole.

    Raises:
        FileNotFoundError: if it is not sealed, because its writing or its removal was interrupted.
    """
    try:
        return first_damage(checkpoint, json.loads((checkpoint / SEAL).read_bytes()))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"{SEAL} is not readable"


def has_checkpoint(folder: Path) -> bool:
    """Return True if a run's folder holds a sealed checkpoint, whole or damaged."""
    return any((checkpoint / SEAL).is_file() for checkpoint in numbered_checkpoints(folder))


def last_usable_checkpoint(folder: Path, report: Callable[[str], None] = logger.warning) -> Path | None:
    """Return the newest checkpoint that is whole and whose best checkpoint is whole.

    Args:
        folder: the run's folder.
        report: called with a sentence about each damaged checkpoint.

    Returns:
        The checkpoint; None if no checkpoint was ever completed.

    Raises:
        UserError: if there are completed checkpoints, but each is damaged.
    """
    damages: list[str] = []
    for checkpoint in numbered_checkpoints(folder):
        try:
            # The end of training loads the best weights, so a checkpoint is of no use without them.
            damage = checkpoint_damage(checkpoint) or _damage_of_best(checkpoint)
        except FileNotFoundError:
            continue
        if damage is None:
            for sentence in damages:
                report(f"{sentence}; the run continues from {checkpoint.name}")
            return checkpoint
        damages.append(f"'{checkpoint}' is damaged: {damage}")
    if damages:
        raise UserError(f"{damages[0]}; no earlier checkpoint is whole, so use --overwrite to begin anew")
    return None


def _damage_of_best(checkpoint: Path) -> str | None:
    """Return what is wrong with the best checkpoint before a whole one, or None."""
    try:
        best_step = json.loads((checkpoint / TRAINER_STATE).read_bytes())["best_global_step"]
    except (ValueError, LookupError, TypeError):
        return f"{TRAINER_STATE} is not readable"
    best = checkpoint if best_step is None else checkpoint_at(checkpoint.parent, best_step)
    if best == checkpoint:
        return None
    try:
        damage = checkpoint_damage(best)
    except FileNotFoundError:
        damage = "it is not there"
    return damage and f"the best checkpoint before it is {best.name}, and {damage}"


def prune(folder: Path, current: int, best: int | None, limit: int) -> None:
    """Remove the oldest checkpoints until at most `limit` are left, but not the best or the current.

    Args:
        folder: the run's folder.
        current: step of the checkpoint that was just written.
        best: step of the best checkpoint, or None.
        limit: largest number of checkpoints, at least 1.
    """
    checkpoints = numbered_checkpoints(folder)
    candidates = [path for path in reversed(checkpoints) if step_of(path) not in (current, best)]
    for path in candidates[: max(0, len(checkpoints) - limit)]:
        remove(path)


def remove_later(checkpoint: Path) -> None:
    """Remove the checkpoints after one, which are incomplete or damaged, before a run resumes."""
    for path in numbered_checkpoints(checkpoint.parent):
        if step_of(path) > step_of(checkpoint):
            remove(path)


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint. If that is interrupted, the rest is not taken for a damaged one."""
    delete(checkpoint / SEAL)
    delete(checkpoint)
