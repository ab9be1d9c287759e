"""Draw every possible paddle, footprint and marker once, with Pillow.

The far end of a paddle is rounded to a pixel of the enlarged drawing, so there are only 9 x 9
different strokes. As in the published generator, Pillow draws (`ImageDraw.line`) and reduces
(`Image.resize` with LANCZOS).
"""

import math
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rmaat.tasks.pathfinder.settings import (
    ANTIALIAS,
    MARKER_RADIUS,
    PADDLE_LENGTH,
    PADDLE_MARGIN,
    PADDLE_THICKNESS,
    SIZE,
)

REACH: Final = PADDLE_LENGTH * ANTIALIAS
"""Most rows or columns of a stroke in the enlarged drawing. A stroke of -REACH has index 0."""
STAMP_HALF: Final = PADDLE_LENGTH + math.ceil(PADDLE_THICKNESS) + PADDLE_MARGIN
"""Pixels of a stamp on each side of the paddle's start."""
SWEEP_HALF: Final = PADDLE_LENGTH + PADDLE_MARGIN
"""Pixels on each side of a first paddle's tail that may have to be free."""


class Stamps(NamedTuple):
    """Tables of small drawings, all read-only.

    The first two axes of ink, footprint and sweep are the stroke's rows and columns, plus REACH.
    """

    ink: NDArray[np.float64]
    """Brightness 0..1 round the paddle's start (9, 9, 9, 9)."""
    footprint: NDArray[np.float64]
    """Room that the paddle takes, 0..1 (9, 9, 9, 9)."""
    sweep: NDArray[np.bool_]
    """Pixels round a first paddle's tail that must be free (9, 9, 7, 7)."""
    marker: NDArray[np.float64]
    """Whole image of one marker, 0..1, by the row and column of its centre (32, 32, 32, 32)."""


def _reduce(drawing: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(drawing).resize((side, side), Image.Resampling.LANCZOS))


def _dilate(drawing: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """Return the maximum over a disk: all whole offsets with y^2 + x^2 <= radius^2."""
    side = len(drawing)
    padded = np.pad(drawing, radius)
    shifts = [
        padded[radius + y : radius + y + side, radius + x : radius + x + side]
        for y in range(-radius, radius + 1)
        for x in range(-radius, radius + 1)
        if y * y + x * x <= radius * radius
    ]
    return np.maximum.reduce(shifts)


def _paddle(stroke_y: int, stroke_x: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return ink and footprint of one stroke, uint8 (9, 9) each.

    The enlarged drawing has 17 pixels, an odd number like the stamp's 9, so the start is in the
    middle of both.
    """
    centre = STAMP_HALF * ANTIALIAS
    drawing = Image.new("L", (2 * centre + 1, 2 * centre + 1), 0)
    ends = [(centre, centre), (centre + stroke_x, centre + stroke_y)]
    ImageDraw.Draw(drawing).line(ends, fill=255, width=round(PADDLE_THICKNESS * ANTIALIAS))
    line = np.asarray(drawing)
    side = 2 * STAMP_HALF + 1
    return _reduce(line, side), _reduce(_dilate(line, PADDLE_MARGIN * ANTIALIAS), side)


def _marker(centre_y: int, centre_x: int) -> NDArray[np.uint8]:
    """Return a whole image with a filled disk, uint8 (32, 32)."""
    across = np.arange(SIZE * ANTIALIAS)
    squares = (across[:, None] - centre_y * ANTIALIAS) ** 2 + (across[None, :] - centre_x * ANTIALIAS) ** 2
    disk = squares <= (MARKER_RADIUS * ANTIALIAS) ** 2
    return _reduce(np.where(disk, np.uint8(255), np.uint8(0)), SIZE)


@lru_cache(maxsize=1)
def stamps() -> Stamps:
    """Return the tables, which are made at the first call."""
    strokes = range(-REACH, REACH + 1)
    paddles = np.array([[_paddle(y, x) for x in strokes] for y in strokes])
    ink, footprint = paddles[:, :, 0], paddles[:, :, 1]
    # The published generator takes the fully covered pixels of a footprint, in a window whose
    # middle is one pixel before the paddle's start. The shift is reproduced because it changes the
    # data.
    window = 2 * SWEEP_HALF + 1
    sweep = footprint[:, :, :window, :window] == 255
    marker = np.array([[_marker(y, x) for x in range(SIZE)] for y in range(SIZE)])
    tables = Stamps(ink / 255.0, footprint / 255.0, sweep, marker / 255.0)
    for table in tables:
        table.flags.writeable = False
    return tables
