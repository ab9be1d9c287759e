"""The constants of Pathfinder32, and its three difficulties.

Sources: the settings that Long Range Arena states for Pathfinder32 (`lra_benchmarks/data/pathfinder.py`), and for
everything else the defaults of the data set's own generator (`snakes2.py` of drewlinsley/pathfinder). Lengths are in
pixels.
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
"""Everything is drawn this much larger, then reduced."""
SEED_DISTANCE: Final = 7
"""Between the tails of the two curves' first paddles; twice as much is kept free of first tails at each edge."""
CONTINUITY: Final = 1.0
"""Turns between paddles are multiplied by it, so that less than pi / 2 is left."""
TARGET_CONTRAST: Final = 0.75 * 2.0
"""Paddle contrast times snake contrast: the distractors know the second factor alone, and so are the brighter ones."""
DISTRACTOR_CONTRAST: Final = 2.0
PADDLE_RETRIES: Final = 2
DISTRACTOR_RETRIES: Final = 4


@dataclass(frozen=True)
class Difficulty:
    """Lengths in paddles: `contour_length` of the two long curves, `distractor_length` of the short ones."""

    contour_length: int
    distractor_length: int
    distractors: int


def _difficulty(contour_length: int) -> Difficulty:
    distractor_length = contour_length // 3
    return Difficulty(contour_length, distractor_length, distractors=20 // distractor_length)


DIFFICULTIES: Final[dict[str, Difficulty]] = {
    "hard": _difficulty(14),
    "intermediate": _difficulty(9),
    "easy": _difficulty(6),
}
"""The released data's names; Long Range Arena reports results on hard."""
