"""The positions of a segment that the classifier reads, one function for each `readout` setting.

Axes: B batch, N positions (memory first).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rmaat.registry import Registry

ReadoutMask = Callable[[Tensor, int], Tensor]
"""(mask_BN, number of memory positions) -> the positions that are read, (B, N) bool."""


def tokens_and_memory(mask_BN: Tensor, num_memory: int) -> Tensor:
    """Return every memory position and every token [C]."""
    return mask_BN


def first_token(mask_BN: Tensor, num_memory: int) -> Tensor:
    """Return the segment's first token."""
    return mask_BN & (torch.arange(mask_BN.shape[1], device=mask_BN.device) == num_memory)


def last_token(mask_BN: Tensor, num_memory: int) -> Tensor:
    """Return the segment's last token, at which a question ends."""
    return torch.arange(mask_BN.shape[1], device=mask_BN.device) == mask_BN.sum(1, keepdim=True) - 1


def memory_only(mask_BN: Tensor, num_memory: int) -> Tensor:
    """Return the memory positions."""
    return mask_BN & (torch.arange(mask_BN.shape[1], device=mask_BN.device) < num_memory)


def tokens_only(mask_BN: Tensor, num_memory: int) -> Tensor:
    """Return every token, without the memory."""
    return mask_BN & (torch.arange(mask_BN.shape[1], device=mask_BN.device) >= num_memory)


READOUT_MASKS: Registry[ReadoutMask] = Registry(
    "readout",
    {
        "mean": tokens_and_memory,
        "first": first_token,
        "last": last_token,
        "memory": memory_only,
        "running_mean": tokens_only,
    },
)
"""The positions that each readout averages.

Only 'running_mean' adds up over segments; the others begin anew in each segment.
"""
