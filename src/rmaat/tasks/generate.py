"""Putting generated files into place: all of them, from one setting, or none."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmaat.errors import UserError
from rmaat.machine.files import scratch_folder, write_json
from rmaat.machine.locks import locked
from rmaat.tasks.base import SPLITS, Counts, GeneratedTask, Progress, ProgressBar, no_bar
from rmaat.tasks.cache import cache_folder, file_checksum, remembered_checksums

SETTINGS = "settings.json"
"""Beside the files: what they were made from."""

CHECKSUMS = "sha256"
"""In the settings: each file's SHA-256, by name."""

PARTIAL = ".partial"
"""Folder of files being written; worth nothing after a kill."""

READY = ".ready"
"""Folder of files that are whole and on their way into place; whoever finds it finishes the move."""


def generate(
    task: GeneratedTask,
    data_dir: Path,
    seed: int,
    counts: Counts,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress = lambda done: None,
) -> bool:
    """Make the task's files in `<data_dir>/<task.folder_name>`; returns whether they were made or were there already.

    Files of the same settings are left alone. `workers` (default: one a core) does not change the files. Raises
    `UserError`, before the work, where files of other settings or damaged ones are there and `overwrite` is false, or
    where the folder cannot be written or its disk is too full.
    """
    folder = data_dir / task.folder_name
    settings = {
        "task": task.info.name,
        "generator_version": task.generator_version,
        "seed": seed,
        "counts": asdict(counts),
        **task.settings(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            if (folder / READY).is_dir():
                _put_into_place(task, folder)
            if not overwrite and _is_there(task, folder, settings):
                check_undamaged(task, data_dir)
                return False
            _check_room(folder, task.bytes_per_example * counts.total())
            _write(task, folder, settings, seed, counts, workers or os.cpu_count() or 1, progress)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}); choose another --data_dir") from error
    return True


def _is_there(task: GeneratedTask, folder: Path, settings: dict[str, Any]) -> bool:
    present = [name for name in task.file_names if (folder / name).is_file()]
    if not present:
        return False
    found = _read_settings(folder)
    made = None if found is None else {key: value for key, value in found.items() if key != CHECKSUMS}
    if len(present) == len(task.file_names) and made == settings:
        return True
    if made is None:
        reason = f"files of unknown or incomplete making ({', '.join(present)})"
    else:
        changed = [f"{key} {made.get(key)} there, {value} asked for" for key, value in settings.items()
                   if made.get(key) != value]  # fmt: skip
        reason = f"other data ({'; '.join(changed)})" if changed else f"only {', '.join(present)}"
    raise UserError(f"{folder} holds {reason}; give --overwrite true to replace it, or another --data_dir")


def made_from(task: GeneratedTask, data_dir: Path) -> dict[str, Any] | None:
    """What the generated files in the data folder were made from; None where they are not whole or that is not known."""
    folder = data_dir / task.folder_name
    whole = all((folder / name).is_file() for name in task.file_names)
    return _read_settings(folder) if whole else None


def check_undamaged(task: GeneratedTask, data_dir: Path, bar: ProgressBar = no_bar) -> None:
    """Raise `UserError` naming the first generated file that is no longer as it was written; files of old have no checksum.

    `bar` is shown while files are read, which happens once only.
    """
    settings = made_from(task, data_dir)
    if settings is None or not isinstance(settings.get(CHECKSUMS), dict):
        return
    paths = [data_dir / task.folder_name / name for name in task.file_names]
    for path, found in zip(paths, remembered_checksums(paths, cache_folder(data_dir), bar), strict=True):
        if found != settings[CHECKSUMS].get(path.name):
            train, validation, test = (settings["counts"][split] for split in SPLITS)
            raise UserError(
                f"{path} is damaged or was changed: its SHA-256 is not that in {SETTINGS}; make it again with "
                f"`{task.command} --data_dir {data_dir} --seed {settings['seed']} --num_train {train} "
                f"--num_val {validation} --num_test {test} --overwrite true`"
            )


def _read_settings(folder: Path) -> dict[str, Any] | None:
    """What is in the settings file; None where it is not there or holds something else."""
    try:
        settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        Counts(**settings["counts"])
        return settings if type(settings["seed"]) is int else None
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(f"{folder} needs about {needed / 1e6:,.0f} MB, but its disk has {free / 1e6:,.0f} MB free")


def _write(
    task: GeneratedTask,
    folder: Path,
    settings: dict[str, Any],
    seed: int,
    counts: Counts,
    workers: int,
    progress: Progress,
) -> None:
    with scratch_folder(folder / PARTIAL) as partial:
        task.write(partial, seed, counts, workers, progress)
        checksums = {name: file_checksum(partial / name) for name in task.file_names}
        write_json(partial / SETTINGS, {**settings, CHECKSUMS: checksums})
        partial.replace(folder / READY)
        _put_into_place(task, folder)


def _put_into_place(task: GeneratedTask, folder: Path) -> None:
    """Move what is in the ready folder; a call that is cut off anywhere is made good by the next one."""
    ready = folder / READY
    names = [name for name in (*task.file_names, SETTINGS) if (ready / name).exists()]
    # All old files go before the first new one comes: wherever this is cut off, no mixture is left to be read.
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for name in names:
        (ready / name).replace(folder / name)
    ready.rmdir()
