"""The least precision in which sums over a sequence are made."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32 where it is narrower (float16, bfloat16), else unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def no_autocast(x: Tensor) -> torch.autocast:
    """A context in which operations on `x`'s device keep the precision of their inputs."""
    return torch.autocast(x.device.type, enabled=False)
