"""How much memory a training step needs, apart from what the process holds anyway."""

import torch

from rmaat.machine.memory import memory_of


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
        self._memory = memory_of("cuda" if torch.cuda.is_available() else "cpu")
        self._baseline: int | None = None

    def begin_step(self, parameter_bytes: int) -> None:
        """Called before a step; `parameter_bytes` is the size of the weights."""
        self._whole = self.whole
        if self._baseline is None:
            # What was freed before the first step but is still resident would hide what the steps take.
            self._memory.return_freed()
            on_gpu = torch.cuda.is_available()
            self._baseline = 0 if on_gpu else max(self._memory.used() - parameter_bytes, 0)
        self._memory.reset_peak()

    def end_step(self) -> None:
        """Called after a step."""
        assert self._baseline is not None
        self.training = max(self.training, self._memory.peak() - self._baseline)

    @property
    def whole(self) -> int:
        """Bytes; the most that the process held at one time so far."""
        return max(self._whole, self._memory.peak())
