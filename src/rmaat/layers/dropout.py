"""Dropout whose masks are arguments.

Masks are drawn outside the layers, from a seed, so that a segment computed twice (replayed, compiled or not) drops the
same values, and no random state has to be saved or restored.
"""

import math

import numpy as np
import torch
from torch import Tensor

LEVELS = 2**16
"""On a CPU, probabilities are multiples of 1 / LEVELS: four masks from one 64-bit draw, several times as fast."""


def draw_keep_masks(seed: int, shape: tuple[int, ...], drop: float, device: torch.device) -> Tensor:
    """True with probability 1 - drop (within 2^-17 on a CPU), of the given shape, bool: a function of its arguments alone."""
    if device.type != "cpu":
        generator = torch.Generator(device).manual_seed(seed)
        return torch.empty(shape, dtype=torch.bool, device=device).bernoulli_(1 - drop, generator=generator)
    count = math.prod(shape)
    draws = torch.from_numpy(np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.int16))
    return (draws[:count] >= round(drop * LEVELS) - LEVELS // 2).view(shape)


def apply_dropout(x: Tensor, keep: Tensor | None, drop: float) -> Tensor:
    """`x` where `keep`, over (1 - drop), else 0; `x` itself where `keep` is None. Any shape, `keep` bool of the same."""
    return x if keep is None else x * keep * (1 / (1 - drop))
