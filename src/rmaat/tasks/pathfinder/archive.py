"""One compressed file of Pathfinder images and labels, with the settings that made them."""

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
"""Raised when the same seed no longer gives the same images, or when the file's arrays change."""


@dataclass(frozen=True)
class PathfinderArchive:
    """images uint8 (n, 32, 32), labels uint8 (n,) of 0 and 1, and the difficulty and seed that they were made from."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    difficulty: str
    seed: int


def write_archive(path: Path, archive: PathfinderArchive) -> None:
    """Write an .npz file with the arrays images, labels, difficulty, seed and version.

    The file appears whole or not at all: an interrupted call leaves what was there before. The same content gives the
    same bytes. Raises `UserError` where the place cannot be written.
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
    """What is wrong with an archive's arrays, or None."""
    images, labels, difficulty = arrays["images"], arrays["labels"], str(arrays["difficulty"])
    if arrays["version"].shape != () or arrays["version"] != VERSION:
        return f"version {arrays['version']} where this program reads {VERSION}"
    if difficulty not in DIFFICULTIES:
        return f"unknown difficulty {difficulty!r}, {did_you_mean(difficulty, DIFFICULTIES)}"
    if arrays["seed"].shape != () or arrays["seed"].dtype.kind not in "iu":
        return "the seed is not a whole number"
    if images.dtype != np.uint8 or images.shape[1:] != (SIZE, SIZE):
        return f"images are {images.dtype} {images.shape} where uint8 (n, {SIZE}, {SIZE}) is expected"
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        return f"labels are {labels.dtype} {labels.shape} where uint8 ({len(images)},) is expected"
    if len(labels) == 0 or labels.max() > 1:
        return "labels are not zeros and ones"
    return None


def read_archive(path: Path) -> PathfinderArchive:
    """Read and check what `write_archive` wrote; nothing in the file is unpickled.

    Raises `UserError`, naming the file, where it is missing, truncated, altered, or holds something else.
    """
    remedy = "delete it and generate it anew"
    names = ("images", "labels", "difficulty", "seed", "version")
    arrays = read_arrays(path, names, "Pathfinder archive", remedy)
    fault = _fault(arrays)
    if fault is not None:
        raise UserError(f"{path}: {fault}; {remedy}")
    return PathfinderArchive(arrays["images"], arrays["labels"], str(arrays["difficulty"]), int(arrays["seed"]))
