"""What the classifier reads of a segment, as a sum over positions and the number of positions in it.

Axes: B batch, N positions (memory first), D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rmaat.registry import Registry

ReadoutSum = Callable[[Tensor, int], Tensor]
"""(mask_BN, number of memory tokens) -> weight of each position, (B, N) bool."""


def tokens_and_memory(mask_BN: Tensor, num_memory: int) -> Tensor:
    """Every memory position and every token [C]."""
    return mask_BN


def first_token(mask_BN: Tensor, num_memory: int) -> Tensor:
    """The segment's first token."""
    return mask_BN & (torch.arange(mask_BN.shape[1], device=mask_BN.device) == num_memory)


def last_token(mask_BN: Tensor, num_memory: int) -> Tensor:
    """The segment's last token, where a question ends."""
    return torch.arange(mask_BN.shape[1], device=mask_BN.device) == mask_BN.sum(1, keepdim=True) - 1


def memory_only(mask_BN: Tensor, num_memory: int) -> Tensor:
    """The memory positions."""
    return mask_BN & (torch.arange(mask_BN.shape[1], device=mask_BN.device) < num_memory)


def tokens_only(mask_BN: Tensor, num_memory: int) -> Tensor:
    """Every token, without the memory."""
    return mask_BN & (torch.arange(mask_BN.shape[1], device=mask_BN.device) >= num_memory)


READOUT_SUMS: Registry[ReadoutSum] = Registry(
    "readout",
    {
        "mean": tokens_and_memory,
        "first": first_token,
        "last": last_token,
        "memory": memory_only,
        "running_mean": tokens_only,
    },
)
"""Which positions a readout averages. Only 'running_mean' adds up over segments; the others begin anew in each."""
