"""Memory and time of one method at one shape, in this process."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median

import torch

from rmaat.compare.methods import METHODS, Method
from rmaat.compare.shapes import Shape
from rmaat.compare.workload import Workload
from rmaat.errors import UserError
from rmaat.machine.memory import ResidentMemory, memory_of


@dataclass(frozen=True)
class Measurement:
    """What one process found.

    Attributes:
        parameters: of the model.
        peak_bytes: the highest memory during the steps above what the built model held before them; resident memory on a CPU,
            the allocator's on CUDA.
        baseline_bytes: what it held.
        step_seconds: of each timed step.
    """

    parameters: int
    peak_bytes: int
    baseline_bytes: int
    step_seconds: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """The median of the timed steps."""
        return median(self.step_seconds)


class OutOfMemoryError(RuntimeError):
    """A step wanted more memory than it was allowed."""


def measure(
    name: str, shape: Shape, device: str, warm_up: int, steps: int, allowance: int | None = None
) -> Measurement:
    """Build the method's model, note the memory, take `warm_up` untimed and `steps` timed steps, note the peak of all.

    Before the baseline, a step at a small shape loads what the first step of a process loads (libraries, threads), and where
    steps are compiled they are compiled on two segments.

    Args:
        name: of the method.
        shape: model and batch.
        device: 'cpu' or 'cuda'.
        warm_up: steps before the timed ones.
        steps: timed steps, at least 1.
        allowance: bytes that the steps may take; None means most of what is free, on CUDA the whole device.

    Raises:
        OutOfMemoryError: where a step wanted more.
        UserError: where the peak cannot be told from that of starting up.
    """
    method = METHODS[name]
    small = shape.small()
    # Graphs of earlier measurements in this process count towards the compiler's limit.
    torch._dynamo.reset()
    method.build(replace(small, torch_compile=False), device).step(small.tokens)
    workload = method.build(shape, device)
    if shape.torch_compile and method.package is None:
        workload.step(_shortest(method, shape))
        workload.model.zero_grad(set_to_none=True)
    memory = memory_of(device)
    baseline, earlier_peak = memory.begin_peak(), memory.peak()
    memory.limit_growth(allowance)
    with telling_out_of_memory():
        seconds = [_timed(workload, shape.tokens, device) for _ in range(warm_up + steps)]
    peak = memory.peak()
    if isinstance(memory, ResidentMemory) and peak <= earlier_peak:
        raise UserError(
            "the steps took less memory than starting up did, and this system cannot reset a process's peak; "
            "compare larger shapes"
        )
    return Measurement(workload.parameters, peak - baseline, baseline, tuple(seconds[warm_up:]))


@contextlib.contextmanager
def telling_out_of_memory() -> Iterator[None]:
    """Raise `OutOfMemoryError` where an allocation of what is within fails, whoever refused it."""
    try:
        yield
    except (RuntimeError, MemoryError) as failure:
        if not _is_out_of_memory(failure):
            raise
        raise OutOfMemoryError("a step wanted more memory than it was allowed") from None


def _shortest(method: Method, shape: Shape) -> int:
    """The fewest tokens whose steps are the same compiled graphs as the whole's."""
    return shape.tokens if method.reads == "whole" else min(shape.tokens, 2 * shape.segment_length)


def _timed(workload: Workload, tokens: int, device: str) -> float:
    started = time.perf_counter()
    workload.step(tokens)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _is_out_of_memory(failure: BaseException) -> bool:
    told = str(failure).lower()
    return isinstance(failure, MemoryError | torch.OutOfMemoryError) or any(
        sign in told for sign in ("can't allocate memory", "bad_alloc", "not enough memory")
    )
