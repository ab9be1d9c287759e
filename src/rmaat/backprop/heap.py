"""The C library's heap, which keeps what was freed."""

import ctypes
from functools import cache
from typing import Any

import torch


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


def return_freed_memory(device: torch.device) -> None:
    """Give the memory that was freed on a CPU back to the system, where the C library is glibc; elsewhere do nothing.

    Between two segments almost all of the heap is free, but small things that live on (gradients, stored states) stand in its
    holes, so that the next segment's activations do not fit and the heap grows to twice a segment's size.
    """
    if device.type == "cpu" and (trim := _trim()):
        trim(0)
