"""Grow two long curves of paddles in turn and short ones in the remaining space, and draw them.

This follows the published generator (`snakes2.py` and `snakes.py` of drewlinsley/pathfinder) down
to its roundings. It stores records of paddles, not whole images: paddles are drawn only once all
curves of an image are complete.

Orientations are in radians, from the columns' axis towards the rows' axis. Coordinates are (row,
column) = (y, x).
"""

import math
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rmaat.tasks.pathfinder.settings import (
    ANTIALIAS,
    CONTINUITY,
    DISTRACTOR_CONTRAST,
    DISTRACTOR_RETRIES,
    PADDING,
    PADDLE_LENGTH,
    PADDLE_MARGIN,
    PADDLE_RETRIES,
    SEED_DISTANCE,
    SIZE,
    TARGET_CONTRAST,
)
from rmaat.tasks.pathfinder.stamps import REACH, STAMP_HALF, SWEEP_HALF, Stamps

PADDLE: Final = np.dtype(
    [
        ("snake", np.int64),
        ("start_y", np.int64),
        ("start_x", np.int64),
        ("stroke_y", np.int64),
        ("stroke_x", np.int64),
        ("pivot_y", np.int64),
        ("pivot_x", np.int64),
        ("orientation", np.float64),
    ]
)
"""The record of one paddle, drawn from the pixel `start` along `stroke`, in half pixels.

A curve's first paddle starts at its tail and is drawn forwards. The others start at their far tips
and are drawn backwards. `snake` is 0 or 1 for the two long curves, 2 and more for distractors,
ABSENT in unused records. `pivot` and `orientation` determine the possible places of the curve's
next paddle."""
ABSENT: Final = -1

STEP: Final = PADDLE_LENGTH + PADDLE_MARGIN
"""Distance from a pivot to the outer tip of its paddle."""
CENTRE: Final = STAMP_HALF * ANTIALIAS
DEAD_END: Final = 1e-4
OVERLAP: Final = 1.8
OCCUPIED: Final = 0.3
"""First paddles avoid pixels whose mask is above this."""

Paddles = NDArray[Any]
Mask = NDArray[np.float64]


@njit
def _below(rng: np.random.Generator, count: int) -> int:
    """Draw a uniform integer in 0..count - 1. `rng.integers` would double the time to compile."""
    return int(rng.random() * count)


@njit
def _translate(y: int, x: int, orientation: float, distance: float) -> tuple[int, int]:
    return math.ceil(y + distance * math.sin(orientation)), math.ceil(x + distance * math.cos(orientation))


@njit
def _flip(orientation: float) -> float:
    return orientation + math.pi if orientation < 0 else orientation - math.pi


@njit
def _inside(y: int, x: int) -> bool:
    return 0 <= y < SIZE and 0 <= x < SIZE


@njit
def _stroke(orientation: float) -> tuple[int, int]:
    """Return the rows and columns of a paddle of this orientation in the enlarged drawing."""
    y, x = _translate(CENTRE, CENTRE, orientation, PADDLE_LENGTH * ANTIALIAS)
    return y - CENTRE, x - CENTRE


@njit
def _window(y: int, x: int) -> tuple[int, int, int, int]:
    """Return first and end row, first and end column of the image under a stamp round (y, x)."""
    return max(y - STAMP_HALF, 0), min(y + STAMP_HALF + 1, SIZE), max(x - STAMP_HALF, 0), min(x + STAMP_HALF + 1, SIZE)


@njit
def _paste(canvas: Mask, table: NDArray[np.float64], paddle: Any, scale: float) -> None:
    """Composite the paddle's stamp from the table onto the canvas, by maximum."""
    stamp = table[paddle.stroke_y + REACH, paddle.stroke_x + REACH]
    top, bottom, left, right = _window(paddle.start_y, paddle.start_x)
    for y in range(top, bottom):
        for x in range(left, right):
            value = scale * stamp[y - paddle.start_y + STAMP_HALF, x - paddle.start_x + STAMP_HALF]
            canvas[y, x] = max(canvas[y, x], value)


@njit
def _fits(mask: Mask, footprint: NDArray[np.float64], paddle: Any) -> bool:
    stamp = footprint[paddle.stroke_y + REACH, paddle.stroke_x + REACH]
    top, bottom, left, right = _window(paddle.start_y, paddle.start_x)
    for y in range(top, bottom):
        for x in range(left, right):
            if mask[y, x] + stamp[y - paddle.start_y + STAMP_HALF, x - paddle.start_x + STAMP_HALF] >= OVERLAP:
                return False
    return True


@njit
def _fill(
    paddle: Any, start_y: int, start_x: int, drawn: float, pivot_y: int, pivot_x: int, orientation: float
) -> None:
    """Write a record except `snake`; `drawn` is the orientation of the stroke from its start."""
    stroke_y, stroke_x = _stroke(drawn)
    paddle.start_y = start_y
    paddle.start_x = start_x
    paddle.stroke_y = stroke_y
    paddle.stroke_x = stroke_x
    paddle.pivot_y = pivot_y
    paddle.pivot_x = pivot_x
    paddle.orientation = orientation


@njit
def _first_paddle(paddle: Any, tail_y: int, tail_x: int, orientation: float) -> bool:
    """Write the record of a curve's first paddle.

    Return False if its head or pivot is outside the image.
    """
    head_y, head_x = _translate(tail_y, tail_x, orientation, PADDLE_LENGTH)
    pivot_y, pivot_x = _translate(head_y, head_x, _flip(orientation), STEP)
    if not (_inside(head_y, head_x) and _inside(pivot_y, pivot_x)):
        return False
    _fill(paddle, tail_y, tail_x, orientation, pivot_y, pivot_x, orientation)
    return True


@njit
def _offsets(sweep: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the pixels round a tail that must be free, (row, column), int64 (n, 2)."""
    offsets = np.empty((sweep.size, 2), np.int64)
    count = 0
    for i in range(2 * SWEEP_HALF + 1):
        for j in range(2 * SWEEP_HALF + 1):
            if sweep[i, j]:
                offsets[count, 0], offsets[count, 1] = i - SWEEP_HALF, j - SWEEP_HALF
                count += 1
    return offsets[:count]


@njit
def _is_free(mask: Mask, frame: int, offsets: NDArray[np.int64], tail_y: int, tail_x: int) -> bool:
    """Return whether a first paddle with this tail has free space; the frame counts as occupied."""
    for i in range(len(offsets)):
        y, x = tail_y + offsets[i, 0], tail_x + offsets[i, 1]
        if not _inside(y, x):
            continue
        if min(y, x) < frame or max(y, x) >= SIZE - frame or mask[y, x] > OCCUPIED:
            return False
    return True


@njit
def _seed(rng: np.random.Generator, mask: Mask, frame: int, stamps: Stamps, paddle: Any) -> bool:
    """Begin a curve at a uniform free pixel, in a uniform direction of whole degrees."""
    free = np.empty(SIZE * SIZE, np.int64)
    for _ in range(PADDLE_RETRIES + 1):
        orientation = (_below(rng, 360) - 180) * math.pi / 180
        stroke_y, stroke_x = _stroke(orientation)
        offsets = _offsets(stamps.sweep[stroke_y + REACH, stroke_x + REACH])
        count = 0
        for place in range(SIZE * SIZE):
            if _is_free(mask, frame, offsets, place // SIZE, place % SIZE):
                free[count] = place
                count += 1
        if count == 0:
            return False
        place = free[_below(rng, count)]
        if _first_paddle(paddle, place // SIZE, place % SIZE, orientation):
            return True
    return False


@njit
def _seed_at_distance(rng: np.random.Generator, first: Any, paddle: Any) -> bool:
    """Begin the second long curve at SEED_DISTANCE from the first one; the mask is not used."""
    for _ in range(PADDLE_RETRIES + 1):
        orientation = (_below(rng, 360) - 180) * math.pi / 180
        bearing = _below(rng, 360) * math.pi / 180
        tail_y = round(first.start_y + SEED_DISTANCE * math.sin(bearing))
        tail_x = round(first.start_x + SEED_DISTANCE * math.cos(bearing))
        if _first_paddle(paddle, tail_y, tail_x, orientation):
            return True
    return False


@njit
def _room(mask: Mask, y: int, x: int) -> float:
    """Return one minus the mask dilated by a disk of radius PADDLE_MARGIN, at one pixel."""
    highest = 0.0
    for dy in range(-PADDLE_MARGIN, PADDLE_MARGIN + 1):
        for dx in range(-PADDLE_MARGIN, PADDLE_MARGIN + 1):
            if dy * dy + dx * dx <= PADDLE_MARGIN * PADDLE_MARGIN and _inside(y + dy, x + dx):
                highest = max(highest, mask[y + dy, x + dx])
    return 1.0 - highest


@njit
def _extend(
    rng: np.random.Generator, mask: Mask, stamps: Stamps, circle: NDArray[np.int64], last: Any, paddle: Any
) -> bool:
    """Add a paddle to the curve that ends in `last`. Return False at a dead end.

    The footprint of `last` is added to the mask only after its successor is placed, which it would
    block.
    """
    pivot_y, pivot_x = _translate(last.pivot_y, last.pivot_x, last.orientation, STEP + PADDLE_MARGIN)
    weights = np.zeros(len(circle))
    for i in range(len(circle)):
        y, x = pivot_y + circle[i, 0], pivot_x + circle[i, 1]
        if not _inside(y, x):
            continue
        # A pixel weighs more if the curve turns less there, and if there is more room.
        turn = abs(math.atan2(circle[i, 0], circle[i, 1]) - last.orientation)
        turn = min(turn, 2 * math.pi - turn)
        smoothness = max(math.cos(min(turn * CONTINUITY, math.pi / 2)), 0.0) ** 2
        weights[i] = smoothness * _room(mask, y, x)
    total = weights.sum()
    if total < DEAD_END:
        return False
    # Draw a pixel of the circle in proportion to its weight, until a paddle fits there.
    for _ in range(PADDLE_RETRIES + 1):
        left = rng.random() * total
        choice = 0
        while choice < len(circle) - 1 and left >= weights[choice]:
            left -= weights[choice]
            choice += 1
        y, x = circle[choice, 0], circle[choice, 1]
        orientation = math.atan2(y, x)
        _fill(paddle, pivot_y + y, pivot_x + x, _flip(orientation), pivot_y, pivot_x, orientation)
        if _fits(mask, stamps.footprint, paddle):
            _paste(mask, stamps.footprint, last, 1.0)
            paddle.snake = last.snake
            return True
    return False


@njit
def _try_targets(
    rng: np.random.Generator, mask: Mask, stamps: Stamps, circle: NDArray[np.int64], length: int, paddles: Paddles
) -> bool:
    """Grow the two long curves from an empty mask, in turn; their records alternate."""
    for y in range(SIZE):
        for x in range(SIZE):
            mask[y, x] = 1.0 if min(y, x) < PADDING or max(y, x) >= SIZE - PADDING else 0.0
    if not _seed(rng, mask, 2 * SEED_DISTANCE, stamps, paddles[0]):
        return False
    if not _seed_at_distance(rng, paddles[0], paddles[1]):
        return False
    paddles[0].snake, paddles[1].snake = 0, 1
    for i in range(2, 2 * length):
        if not _extend(rng, mask, stamps, circle, paddles[i - 2], paddles[i]):
            return False
    # Add the last footprint of the second curve, but not of the first one, as in the published
    # data.
    _paste(mask, stamps.footprint, paddles[2 * length - 1], 1.0)
    return True


@njit
def _try_distractor(
    rng: np.random.Generator, mask: Mask, stamps: Stamps, circle: NDArray[np.int64], paddles: Paddles, snake: int
) -> bool:
    """Grow one short curve that fills `paddles`. A failure leaves a part of it in the mask."""
    if not _seed(rng, mask, PADDING, stamps, paddles[0]):
        return False
    paddles[0].snake = snake
    for i in range(1, len(paddles)):
        if not _extend(rng, mask, stamps, circle, paddles[i - 1], paddles[i]):
            return False
    _paste(mask, stamps.footprint, paddles[len(paddles) - 1], 1.0)
    return True


@njit
def _copy(source: Mask, target: Mask) -> None:
    """Do `target[:] = source`, which would take seconds longer to compile."""
    for y in range(SIZE):
        for x in range(SIZE):
            target[y, x] = source[y, x]


@njit
def _add_distractors(
    rng: np.random.Generator,
    mask: Mask,
    stamps: Stamps,
    circle: NDArray[np.int64],
    length: int,
    wanted: int,
    paddles: Paddles,
) -> None:
    """Add up to `wanted` short curves, numbered from 2; unused records are marked ABSENT."""
    tried = mask.copy()
    used = 0
    for _ in range(wanted):
        for _ in range(DISTRACTOR_RETRIES + 1):
            if _try_distractor(rng, tried, stamps, circle, paddles[used * length : (used + 1) * length], 2 + used):
                _copy(tried, mask)
                used += 1
                break
            _copy(mask, tried)
    for i in range(used * length, len(paddles)):
        paddles[i].snake = ABSENT


@njit
def _render(stamps: Stamps, paddles: Paddles, markers: NDArray[np.int64], image: NDArray[np.uint8]) -> None:
    """Composite all paddles and markers by maximum, and scale the image to 0..255."""
    canvas = np.zeros((SIZE, SIZE))
    for i in range(len(paddles)):
        if paddles[i].snake != ABSENT:
            _paste(canvas, stamps.ink, paddles[i], TARGET_CONTRAST if paddles[i].snake < 2 else DISTRACTOR_CONTRAST)
    darkest, brightest = np.inf, -np.inf
    for y in range(SIZE):
        for x in range(SIZE):
            for i in range(len(markers)):
                canvas[y, x] = max(canvas[y, x], stamps.marker[markers[i, 0], markers[i, 1], y, x])
            darkest = min(darkest, canvas[y, x])
            brightest = max(brightest, canvas[y, x])
    scale = 255.0 / (brightest - darkest)
    for y in range(SIZE):
        for x in range(SIZE):
            image[y, x] = int((canvas[y, x] - darkest) * scale + 0.5)


@njit(nogil=True)
def fill_block(
    rng: np.random.Generator,
    stamps: Stamps,
    circle: NDArray[np.int64],
    contour_length: int,
    distractor_length: int,
    labels: NDArray[np.uint8],
    images: NDArray[np.uint8],
    paddles: Paddles,
    markers: NDArray[np.int64],
) -> int:
    """Make one image for each label. Return the number of attempts at a pair of long curves.

    Reads `labels` uint8 (n,). Writes `images` uint8 (n, 32, 32), `paddles` PADDLE (n, P) with P =
    2 contour_length + room for whole distractors, and `markers` int64 (n, 2, 2). One marker lies on
    the tail of one long curve, the other on the far tip of the same curve (label 1) or the other
    (label 0).
    """
    mask = np.empty((SIZE, SIZE))
    attempts = 0
    targets = 2 * contour_length
    wanted = (paddles.shape[1] - targets) // distractor_length
    for n in range(len(labels)):
        attempts += 1
        while not _try_targets(rng, mask, stamps, circle, contour_length, paddles[n, :targets]):
            attempts += 1
        _add_distractors(rng, mask, stamps, circle, distractor_length, wanted, paddles[n, targets:])
        origin = _below(rng, 2)
        terminal = origin if labels[n] == 1 else 1 - origin
        tail, tip = paddles[n, origin], paddles[n, targets - 2 + terminal]
        markers[n, 0, 0], markers[n, 0, 1] = tail.start_y, tail.start_x
        markers[n, 1, 0], markers[n, 1, 1] = tip.start_y, tip.start_x
        _render(stamps, paddles[n], markers[n], images[n])
    return attempts


def circle_offsets() -> NDArray[np.int64]:
    """Return the pixels, (row, column) from a pivot, for the outer tip of its paddle: int64 (K, 2).

    They are points on the circle of radius STEP, one pixel's length apart, rounded down to whole
    pixels, and sorted.
    """
    angles = np.arange(0, 360, 360 / (2 * np.pi * STEP)) * np.pi / 180
    points = np.stack([np.sin(angles), np.cos(angles)], axis=1) * STEP
    return np.unique(np.floor(points).astype(np.int64), axis=0)
