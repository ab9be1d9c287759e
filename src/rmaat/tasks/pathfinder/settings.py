"""The constants of Pathfinder32, and its three difficulties. Lengths are in pixels.

Sources: the settings that Long Range Arena states for Pathfinder32
(`lra_benchmarks/data/pathfinder.py`), and for everything else the defaults of the data set's
generator (`snakes2.py` of drewlinsley/pathfinder).
"""

from dataclasses import dataclass
from typing import Final

SIZE: Final = 32
PADDING: Final = 1
"""Width of the frame that no curve enters."""
PADDLE_LENGTH: Final = 2
PADDLE_MARGIN: Final = 1
PADDLE_THICKNESS: Final = 0.5
MARKER_RADIUS: Final = 1.5
ANTIALIAS: Final = 2
"""Factor by which drawings are larger than the image that they are reduced to."""
SEED_DISTANCE: Final = 7
"""Distance between the tails of the two long curves; the first is twice that from the edges."""
CONTINUITY: Final = 1.0
"""Factor of the turns between paddles, which are then less than pi / 2."""
TARGET_CONTRAST: Final = 0.75 * 2.0
"""Paddle contrast times snake contrast; distractors have only the second factor."""
DISTRACTOR_CONTRAST: Final = 2.0
PADDLE_RETRIES: Final = 2
DISTRACTOR_RETRIES: Final = 4


@dataclass(frozen=True)
class Difficulty:
    """Lengths of the curves, in paddles."""

    contour_length: int
    """Of the two long curves."""
    distractor_length: int
    """Of the short curves."""
    distractors: int
    """Most short curves of an image."""


def _difficulty(contour_length: int) -> Difficulty:
    distractor_length = contour_length // 3
    return Difficulty(contour_length, distractor_length, distractors=20 // distractor_length)


DIFFICULTIES: Final[dict[str, Difficulty]] = {
    "hard": _difficulty(14),
    "intermediate": _difficulty(9),
    "easy": _difficulty(6),
}
"""The difficulties of the released data; Long Range Arena reports results on hard."""
