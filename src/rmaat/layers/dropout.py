"""Dropout with masks as arguments.

Masks are drawn outside the layers, from a seed. A recomputed segment therefore drops the same
values, compiled or not, and no random state has to be saved and restored.
"""

import math

import numpy as np
import torch
from torch import Tensor

LEVELS = 2**16
"""On a CPU, probabilities are rounded to multiples of 1 / LEVELS.

One 64-bit draw then gives four entries of a mask, which is several times as fast.
"""


def draw_dropout_masks(seed: int, shape: tuple[int, ...], drop: float, device: torch.device) -> Tensor:
    """Return a bool mask whose entries are True with probability 1 - drop; True keeps a value.

    The mask depends on the arguments only. On a CPU the probability is exact to 2^-17.
    """
    if device.type != "cpu":
        generator = torch.Generator(device).manual_seed(seed)
        return torch.empty(shape, dtype=torch.bool, device=device).bernoulli_(1 - drop, generator=generator)
    count = math.prod(shape)
    draws = torch.from_numpy(np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.int16))
    # The draws are uniform over the int16 range, -LEVELS / 2 .. LEVELS / 2 - 1.
    return (draws[:count] >= round(drop * LEVELS) - LEVELS // 2).view(shape)


def apply_dropout(x: Tensor, mask: Tensor | None, drop: float) -> Tensor:
    """Return x / (1 - drop) where the mask is True, else 0; without a mask, return `x`.

    Args:
        x: any shape.
        mask: bool, of the shape of `x`, or None for no dropout.
        drop: the probability that the mask was drawn with.
    """
    return x if mask is None else x * mask * (1 / (1 - drop))
