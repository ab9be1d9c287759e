"""`PeakMemory`, the memory of training steps apart from libraries and data."""

import torch

from rmaat.machine.memory import memory_of


class PeakMemory:
    """The peak memory of the training steps, and of the whole process.

    On a GPU both count the allocator's memory: weights, gradients, the optimiser's moments and
    activations. On a CPU the resident memory also holds libraries and data. `training_peak`
    subtracts the resident memory before the first step, except the weights, so that it counts the
    same as on a GPU. It includes the code that torch.compile loads in the first step.
    """

    def __init__(self) -> None:
        self.training_peak = 0
        """The peak of the training steps so far, in bytes."""
        self._earlier_peak = 0
        self._memory = memory_of("cuda" if torch.cuda.is_available() else "cpu")
        self._baseline: int | None = None

    def begin_step(self, parameter_bytes: int) -> None:
        """Begin to measure a step; `parameter_bytes` is the size of the weights."""
        # Save the peak of the process, because `reset_peak` below forgets it.
        self._earlier_peak = self.process_peak
        if self._baseline is None:
            # Memory that was freed but is still resident would hide what the steps allocate.
            self._memory.return_freed()
            on_gpu = torch.cuda.is_available()
            self._baseline = 0 if on_gpu else max(self._memory.used() - parameter_bytes, 0)
        self._memory.reset_peak()

    def end_step(self) -> None:
        """End the measurement of a step."""
        assert self._baseline is not None
        self.training_peak = max(self.training_peak, self._memory.peak() - self._baseline)

    @property
    def process_peak(self) -> int:
        """The peak memory of the process so far, in bytes."""
        return max(self._earlier_peak, self._memory.peak())
