"""Dropout whose masks are arguments.

Masks are drawn outside the layers, from a seed, so that a segment computed twice (replayed, compiled or not) drops the same
values, and no random state has to be saved or restored.
"""

import torch
from torch import Tensor


def draw_keep_masks(seed: int, shape: tuple[int, ...], drop: float, device: torch.device) -> Tensor:
    """True with probability 1 - drop, of the given shape, on the device: a function of its arguments alone."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.empty(shape, dtype=torch.bool, device=device).bernoulli_(1 - drop, generator=generator)


def apply_dropout(x: Tensor, keep: Tensor | None, drop: float) -> Tensor:
    """`x` where `keep`, over (1 - drop), else 0; `x` itself where `keep` is None. Any shape, `keep` bool of the same."""
    return x if keep is None else x * keep * (1 / (1 - drop))
