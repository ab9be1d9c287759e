"""The resident memory of this process: now, at its peak, and a limit on what it may still take."""

import contextlib
import ctypes
import resource
import sys
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from rmaat import cgroups

SHARE_OF_FREE = 0.85
"""What a measurement may take of the memory that is free, so that it fails instead of the machine."""


def resident_bytes() -> int:
    """What is resident now."""
    return int(psutil.Process().memory_info().rss)


def free_bytes() -> int:
    """What the machine could still give, or less where a container or a batch system sets a limit."""
    available = int(psutil.virtual_memory().available)
    left = cgroups.left_bytes()
    return available if left is None else min(available, left)


def most_of_free() -> int:
    """What a measurement may take, so that it fails instead of the machine."""
    return int(SHARE_OF_FREE * free_bytes())


def peak_bytes() -> int:
    """The most that was resident since the start or the last `reset_peak`."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak() -> None:
    """Let the peak begin anew, where the system can; elsewhere it stays the peak since the start."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def return_freed() -> None:
    """Give freed memory, which glibc keeps for later, back to the system; with another C library do nothing."""
    if trim := _trim():
        trim(0)


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


def limit_growth(allowance: int) -> None:
    """Let allocations fail that take this process further than `allowance` bytes beyond what it holds now (Linux only)."""
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + allowance, hard))


def _data_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("Linux states VmData")
