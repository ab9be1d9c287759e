"""How much memory a training step needs, apart from what the process holds anyway."""

import contextlib
import resource
import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
HIGH_WATER_RESET = Path("/proc/self/clear_refs")


class PeakMemory:
    """The highest amount of memory in training steps, and in the whole process.

    On a GPU both are the allocator's: weights, gradients, the optimiser's moments, activations. On a CPU the process's resident
    memory also holds libraries and data; `training` leaves out what was resident before the first step, weights excepted, so
    that it counts the same things as on a GPU. (What a compiler loads in the first step is in it.)
    """

    def __init__(self) -> None:
        self.training = 0
        """Bytes; the most in any step."""
        self._whole = 0
        self._resident: int | None = None

    def begin_step(self, parameter_bytes: int) -> None:
        """Called before a step; `parameter_bytes` is the size of the weights."""
        if self._resident is None:
            self._resident = 0 if torch.cuda.is_available() else max(_resident() - parameter_bytes, 0)
        self._whole = self.whole
        _forget_high_water()

    def end_step(self) -> None:
        """Called after a step."""
        assert self._resident is not None
        self.training = max(self.training, _high_water() - self._resident)

    @property
    def whole(self) -> int:
        """Bytes; the most that the process held at one time so far."""
        return max(self._whole, _high_water())


def _resident() -> int:
    return _status("VmRSS") if STATUS.exists() else _high_water()


def _high_water() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if STATUS.exists():
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_high_water() -> None:
    """Count the high water from now; where the system cannot, it stays that of the whole process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            HIGH_WATER_RESET.write_text("5")


def _status(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
