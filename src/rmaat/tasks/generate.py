"""Write the files of a generated task: all of them, from one set of settings, or none.

They are written into `.partial`, renamed to `.ready` once they are whole, and moved into place from
there. An interrupted move is completed by the next call.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rmaat.errors import UserError
from rmaat.machine.files import check_free_space, file_checksum, scratch_folder, write_json
from rmaat.machine.locks import locked
from rmaat.tasks.base import SPLITS, Counts, GeneratedTask, Progress, ProgressBar, no_bar
from rmaat.tasks.cache import cache_folder
from rmaat.tasks.checksums import remembered_checksums

SETTINGS = "settings.json"
"""The file, beside the others, that holds the settings they were made from."""

CHECKSUMS = "sha256"
"""The key of the settings that holds each file's SHA-256, by name."""

PARTIAL = ".partial"
"""Folder of files that are being written; useless if the process was killed."""

READY = ".ready"
"""Folder of whole files that are to be moved into place."""


def generate(
    task: GeneratedTask,
    data_dir: Path,
    seed: int,
    counts: Counts,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress = lambda done: None,
) -> bool:
    """Make the task's files in `<data_dir>/<task.folder_name>`, unless they are there already.

    Args:
        task: the task.
        data_dir: the data folder.
        seed: determines the files, with `counts` and the task's settings.
        counts: numbers of examples.
        overwrite: replace files of other settings, and damaged ones.
        workers: threads, one for each core by default; they do not change the files.
        progress: called with numbers of examples.

    Returns:
        True if the files were made, False if they were there.

    Raises:
        UserError: before the work, if files of other settings or damaged ones are there and
            `overwrite` is false, if the folder cannot be written, or if its disk is too full.
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
                _move_into_place(task, folder)
            if not overwrite and _is_there(task, folder, settings):
                check_undamaged(task, data_dir)
                return False
            check_free_space(folder, task.bytes_per_example * counts.total())
            _write(task, folder, settings, seed, counts, workers or os.cpu_count() or 1, progress)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}); choose another --data_dir") from error
    return True


def _is_there(task: GeneratedTask, folder: Path, settings: dict[str, Any]) -> bool:
    present = [name for name in task.file_names if (folder / name).is_file()]
    if not present:
        return False
    stored = _read_settings(folder)
    if stored is not None:
        stored.pop(CHECKSUMS, None)
    if len(present) == len(task.file_names) and stored == settings:
        return True
    if stored is None:
        reason = f"files without readable settings ({', '.join(present)})"
    else:
        changed = [f"{key} {stored.get(key)} there, {value} asked for" for key, value in settings.items()
                   if stored.get(key) != value]  # fmt: skip
        reason = f"other data ({'; '.join(changed)})" if changed else f"only {', '.join(present)}"
    raise UserError(f"{folder} holds {reason}; give --overwrite true to replace it, or another --data_dir")


def made_from(task: GeneratedTask, data_dir: Path) -> dict[str, Any] | None:
    """Return the settings of the generated files; None if a file is missing or unreadable."""
    whole = all(path.is_file() for path in task.generated_files(data_dir))
    return _read_settings(data_dir / task.folder_name) if whole else None


def check_undamaged(task: GeneratedTask, data_dir: Path, bar: ProgressBar = no_bar) -> None:
    """Check the generated files against the checksums that were stored with them, if there are any.

    `bar` is shown while files are read, which happens only once.

    Raises:
        UserError: if a file was changed; names the first one.
    """
    settings = made_from(task, data_dir)
    if settings is None or not isinstance(settings.get(CHECKSUMS), dict):
        return
    paths = task.generated_files(data_dir)
    for path, checksum in zip(paths, remembered_checksums(paths, cache_folder(data_dir), bar), strict=True):
        if checksum != settings[CHECKSUMS].get(path.name):
            train, validation, test = (settings["counts"][split] for split in SPLITS)
            raise UserError(
                f"{path} is damaged or was changed: its SHA-256 is not that in {SETTINGS}; make it again with "
                f"`{task.command} --data_dir {data_dir} --seed {settings['seed']} --num_train {train} "
                f"--num_val {validation} --num_test {test} --overwrite true`"
            )


def _read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the content of the settings file; None if it is missing or holds something else."""
    try:
        settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        Counts(**settings["counts"])
        return settings if type(settings["seed"]) is int else None
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None


def _write(
    task: GeneratedTask,
    folder: Path,
    settings: dict[str, Any],
    seed: int,
    counts: Counts,
    workers: int,
    progress: Progress,
) -> None:
    # A process that was killed may have left the folder; because this one holds the lock, no other
    # uses it.
    with scratch_folder(folder / PARTIAL) as partial:
        task.write(partial, seed, counts, workers, progress)
        checksums = {name: file_checksum(partial / name) for name in task.file_names}
        write_json(partial / SETTINGS, {**settings, CHECKSUMS: checksums})
        partial.replace(folder / READY)
        _move_into_place(task, folder)


def _move_into_place(task: GeneratedTask, folder: Path) -> None:
    """Move the ready files into place. If the process is killed here, the next call continues."""
    ready = folder / READY
    names = [name for name in (*task.file_names, SETTINGS) if (ready / name).exists()]
    # Remove all old files before the first new one is moved, so that old and new are never mixed.
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for name in names:
        (ready / name).replace(folder / name)
    ready.rmdir()
