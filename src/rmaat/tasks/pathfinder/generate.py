"""Generate Pathfinder images and labels from a seed, block by block, on all cores."""

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError, did_you_mean
from rmaat.tasks.base import Progress
from rmaat.tasks.pathfinder.settings import DIFFICULTIES, SIZE
from rmaat.tasks.pathfinder.snakes import PADDLE, circle_offsets, fill_block
from rmaat.tasks.pathfinder.stamps import stamps

BLOCK: Final = 500
"""Images that share one random stream; part of what a seed means. Even, for balanced labels."""


@dataclass(frozen=True)
class Geometry:
    """The drawn paddles and markers, for tests and figures."""

    paddles: NDArray[Any]
    """`snakes.PADDLE` records (count, P).

    The two long curves alternate in the first 2 * contour_length."""
    markers: NDArray[np.int64]
    """Row and column of the two markers (count, 2, 2)."""
    attempts: int
    """Pairs of long curves that were begun, over all images."""


Sample = tuple[NDArray[np.uint8], NDArray[np.uint8], Geometry]
"""Images, labels and geometry."""


def _make_block(difficulty: str, seed: int, start: int, size: int) -> Sample:
    settings = DIFFICULTIES[difficulty]
    sequence = np.random.SeedSequence((seed, settings.contour_length), spawn_key=(start // BLOCK,))
    rng = np.random.Generator(np.random.PCG64(sequence))
    labels = rng.permutation(np.arange(size, dtype=np.uint8) % 2)
    images = np.zeros((size, SIZE, SIZE), np.uint8)
    most = 2 * settings.contour_length + settings.distractors * settings.distractor_length
    paddles = np.zeros((size, most), PADDLE)
    markers = np.zeros((size, 2, 2), np.int64)
    attempts = fill_block(
        rng,
        stamps(),
        circle_offsets(),
        settings.contour_length,
        settings.distractor_length,
        labels,
        images,
        paddles,
        markers,
    )
    return images, labels, Geometry(paddles, markers, attempts)


def _check(difficulty: str, count: int, seed: int, workers: int) -> None:
    if difficulty not in DIFFICULTIES:
        raise UserError(f"unknown Pathfinder difficulty '{difficulty}'; {did_you_mean(difficulty, DIFFICULTIES)}")
    for name, value, least in (("count", count, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if value < least:
            raise UserError(f"Pathfinder's {name} must be at least {least}, not {value}")


def generate_images(
    difficulty: str, count: int, seed: int, *, workers: int | None = None, progress: Progress = lambda done: None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Generate images. They depend on difficulty, count and seed, not on the number of workers.

    Args:
        difficulty: "hard" (two curves of 14 paddles, as in Long Range Arena), "intermediate" (9) or
            "easy" (6).
        count: number of images. Two counts with one seed share their common blocks of 500 images.
        seed: at least 0.
        workers: threads, one for each core by default; the compiled code releases the interpreter's
            lock.
        progress: called with numbers of images.

    Returns:
        Images uint8 (count, 32, 32) and labels uint8 (count,), 1 if both markers lie on one curve.
        Half of the labels are 1, rounded down, in random order.

    Raises:
        UserError: if the difficulty is unknown or a number is too small.
    """
    workers = workers if workers is not None else os.cpu_count() or 1
    _check(difficulty, count, seed, workers)
    images = np.empty((count, SIZE, SIZE), np.uint8)
    labels = np.empty(count, np.uint8)

    def fill(start: int) -> int:
        stop = min(start + BLOCK, count)
        images[start:stop], labels[start:stop], _ = _make_block(difficulty, seed, start, stop - start)
        return stop - start

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(fill, start) for start in range(0, count, BLOCK)]
        try:
            for future in as_completed(futures):
                progress(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return images, labels


def generate_with_geometry(difficulty: str, count: int, seed: int) -> Sample:
    """Return the images and labels of `generate_images`, and their geometry."""
    _check(difficulty, count, seed, workers=1)
    blocks = [_make_block(difficulty, seed, start, min(BLOCK, count - start)) for start in range(0, count, BLOCK)]
    images, labels, drawn = zip(*blocks, strict=True)
    geometry = Geometry(
        np.concatenate([block.paddles for block in drawn]),
        np.concatenate([block.markers for block in drawn]),
        sum(block.attempts for block in drawn),
    )
    return np.concatenate(images), np.concatenate(labels), geometry
