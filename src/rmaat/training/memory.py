"""How much memory a training step needs, apart from what the process holds anyway."""

import torch

from rmaat import resident


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
        self._whole = self.whole
        if self._resident is None:
            # What was freed before the first step but is still resident would hide what the steps take.
            resident.return_freed()
            self._resident = 0 if torch.cuda.is_available() else max(resident.resident_bytes() - parameter_bytes, 0)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            resident.reset_peak()

    def end_step(self) -> None:
        """Called after a step."""
        assert self._resident is not None
        self.training = max(self.training, _high_water() - self._resident)

    @property
    def whole(self) -> int:
        """Bytes; the most that the process held at one time so far."""
        return max(self._whole, _high_water())


def _high_water() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident.peak_bytes()
