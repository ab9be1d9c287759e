"""Random shifts and symmetries of images, which keep label and size.

A task names its change of training examples in `Task.augmentation`: a function of a random
generator and the token ids (N,) of one example, which returns new ids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmaat.tasks.base import TokenIds


@dataclass(frozen=True)
class ImageAugmentation:
    """Random shifts and symmetries of a grey image; returns its levels (rows * columns,).

    A shift reflects the image at its border, without repeating the border itself.
    """

    shape: tuple[int, int]
    """Rows and columns."""
    shift: int = 0
    """Largest shift in pixels, down or up and right or left; below both sides."""
    mirror: bool = False
    """Exchange left and right with probability 1/2."""
    turn: bool = False
    """Apply one of the 8 symmetries of the square; the image must be one."""

    def __call__(self, rng: np.random.Generator, ids_N: TokenIds) -> TokenIds:
        """Return the levels of a changed image.

        Args:
            rng: source of all draws.
            ids_N: (N,) levels, row by row.
        """
        shifts = rng.integers(-self.shift, self.shift, size=2, endpoint=True)
        rows, columns = (
            _reflected(np.arange(size) + shift, size) for size, shift in zip(self.shape, shifts, strict=True)
        )
        if self.turn and rng.random() < 0.5:
            rows = rows[::-1]
        if (self.turn or self.mirror) and rng.random() < 0.5:
            columns = columns[::-1]
        # Flips and a transposition together are all 8 symmetries.
        image = ids_N.reshape(self.shape)
        if self.turn and rng.random() < 0.5:
            image = image.T
        return image[rows[:, None], columns].reshape(-1)


def _reflected(indices: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return indices below 0, or from `size` on, reflected at 0 and at `size - 1`."""
    last = size - 1
    return last - np.abs(last - np.abs(indices))
