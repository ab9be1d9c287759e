"""Write and read a compressed file of Pathfinder images, labels and the settings that made them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError, did_you_mean
from rmaat.machine.files import replacing
from rmaat.tasks.npz import read_arrays
from rmaat.tasks.pathfinder.settings import DIFFICULTIES, SIZE

VERSION: Final = 1
"""Raised whenever the same seed would give other images, or the file's arrays change."""


@dataclass(frozen=True)
class PathfinderArchive:
    """Images and labels, with the difficulty and seed that they were made from."""

    images: NDArray[np.uint8]
    """Grey levels (n, 32, 32)."""
    labels: NDArray[np.uint8]
    """0 or 1 (n,)."""
    difficulty: str
    seed: int


def write_archive(path: Path, archive: PathfinderArchive) -> None:
    """Write an .npz file with the arrays images, labels, difficulty, seed and version.

    The file appears whole or not at all: an interrupted call leaves the previous file. The same
    content gives the same bytes.

    Raises:
        UserError: if the file cannot be written.
    """
    try:
        with replacing(path, sync=True) as file:
            np.savez_compressed(
                file,
                images=archive.images,
                labels=archive.labels,
                difficulty=np.array(archive.difficulty),
                seed=np.array(archive.seed),
                version=np.array(VERSION),
            )
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); choose a folder that exists and has room"
        ) from error


def _fault(arrays: dict[str, NDArray[Any]]) -> str | None:
    """Return the fault of an archive's arrays, for a message; None if there is none."""
    images, labels, difficulty = arrays["images"], arrays["labels"], str(arrays["difficulty"])
    if arrays["version"].shape != () or arrays["version"] != VERSION:
        return f"version {arrays['version']}, but this program reads {VERSION}"
    if difficulty not in DIFFICULTIES:
        return f"unknown difficulty {difficulty!r}, {did_you_mean(difficulty, DIFFICULTIES)}"
    if arrays["seed"].shape != () or arrays["seed"].dtype.kind not in "iu":
        return "the seed is not a whole number"
    if images.dtype != np.uint8 or images.shape[1:] != (SIZE, SIZE):
        return f"images are {images.dtype} {images.shape}; expected uint8 (n, {SIZE}, {SIZE})"
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        return f"labels are {labels.dtype} {labels.shape}; expected uint8 ({len(images)},)"
    if len(labels) == 0 or labels.max() > 1:
        return "labels are not zeros and ones"
    return None


def read_archive(path: Path) -> PathfinderArchive:
    """Return a checked archive that `write_archive` wrote; nothing in the file is unpickled.

    Raises:
        UserError: if the file is missing, truncated, altered, or holds something else.
    """
    remedy = "delete it and generate it anew"
    names = ("images", "labels", "difficulty", "seed", "version")
    arrays = read_arrays(path, names, "Pathfinder archive", remedy)
    fault = _fault(arrays)
    if fault is not None:
        raise UserError(f"{path}: {fault}; {remedy}")
    return PathfinderArchive(arrays["images"], arrays["labels"], str(arrays["difficulty"]), int(arrays["seed"]))
