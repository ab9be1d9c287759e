"""What one process measures: memory, time and operations of a method; the machine's speed."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from rmaat.bench.methods import METHODS
from rmaat.bench.models import build
from rmaat.bench.shape import Shape
from rmaat.errors import UserError
from rmaat.machine.memory import ResidentMemory, memory_of
from rmaat.machine.processes import OutOfMemoryError

SIGNS = ("can't allocate memory", "bad_alloc", "not enough memory")
"""Parts of the messages with which a CPU's allocators refuse."""
MATRIX_PRODUCTS = 10
MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}

# PyTorch's counter knows only the CUDA kernels; the CPU's have the same shapes and products.
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_CPU_ATTENTION: dict[Any, Callable[..., int]] = {
    _FLASH: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    _FLASH_BACKWARD: lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v),
}


@dataclass(frozen=True)
class Measurement:
    """Figures of one process.

    Attributes:
        parameters: of the model.
        peak_bytes: the peak during the steps above `baseline_bytes`; resident memory on a CPU, the
            allocator's on CUDA.
        baseline_bytes: in use after the model was built.
        step_seconds: of each timed step.
    """

    parameters: int
    peak_bytes: int
    baseline_bytes: int
    step_seconds: tuple[float, ...]


def measure(
    name: str,
    shape: Shape,
    device: str,
    warm_up: int,
    steps: int,
    allowance: int | None = None,
) -> Measurement:
    """Build a method's model, take some steps, and return their time and peak memory.

    Args:
        name: of the method.
        shape: model and batch.
        device: 'cpu' or 'cuda'.
        warm_up: untimed steps before the timed ones; the peak is of all.
        steps: timed steps, at least 1.
        allowance: bytes that the steps may take; None means most of the free memory, or on CUDA the
            whole device.

    Raises:
        OutOfMemoryError: if a step needed more.
        UserError: if the peak cannot be distinguished from that of starting up.
    """
    method, small = METHODS[name], shape.small()
    # Graphs of earlier measurements in this process count towards the compiler's limit.
    torch._dynamo.reset()
    # The first step of a process loads libraries and starts threads, which is not the method's.
    build(method, replace(small, torch_compile=False), device)(small.tokens)
    step = build(method, shape, device)
    if shape.torch_compile and method.package is None:
        # Compile before the baseline. All segments have the same graphs, so two are enough.
        step(min(shape.tokens, 2 * shape.segment_length) if method.is_recurrent else shape.tokens)
        step.model.zero_grad(set_to_none=True)
    memory = memory_of(device)
    baseline, earlier_peak = memory.begin_peak(), memory.peak()
    memory.limit_growth(allowance)
    with raising_out_of_memory():
        seconds = [_timed(device, step, shape.tokens) for _ in range(warm_up + steps)]
    peak = memory.peak()
    if isinstance(memory, ResidentMemory) and peak <= earlier_peak:
        raise UserError(
            "the steps took less memory than starting up did, and this system cannot reset a "
            "process's peak; compare larger shapes"
        )
    parameters = sum(p.numel() for p in step.model.parameters() if p.requires_grad)
    return Measurement(parameters, peak - baseline, baseline, tuple(seconds[warm_up:]))


@contextlib.contextmanager
def raising_out_of_memory() -> Iterator[None]:
    """Raise `OutOfMemoryError` if an allocation in the context fails, whoever refused it."""
    try:
        yield
    except (RuntimeError, MemoryError) as failure:
        named = isinstance(failure, MemoryError | torch.OutOfMemoryError)
        if not named and not any(sign in str(failure).lower() for sign in SIGNS):
            raise
        raise OutOfMemoryError("a step wanted more memory than it was allowed") from None


def _timed(device: str, function: Callable[..., object], *arguments: Any) -> float:
    started = time.perf_counter()
    function(*arguments)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def matrix_product_rate(device: str, bf16: bool) -> float:
    """Return the operations a second of a large square matrix product, the median of ten.

    A multiplication and an addition are two operations.
    """
    size = MATRIX_SIZE[device]
    dtype = torch.bfloat16 if bf16 else torch.float32
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product = partial(torch.mm, a, b, out=torch.empty_like(a))
    seconds = [_timed(device, product) for _ in range(MATRIX_PRODUCTS + 2)]
    return 2 * size**3 / median(seconds[2:])


def model_operations(name: str, shape: Shape, device: str) -> int:
    """Return the operations of one step's matrix products, with nothing counted twice.

    They are counted on full backpropagation, so that recomputing is not work. On a CPU, this limits
    the memory that the process may take from then on.

    Raises:
        OutOfMemoryError: if the counted steps need more memory than the process may take.
    """
    method = METHODS[name]

    def count(segments: int, batch: int) -> int:
        tokens = segments * shape.segment_length
        counted = replace(shape, tokens=tokens, batch=batch, torch_compile=False)
        step = build(method.reference or method, counted, device)
        counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
        with counter, raising_out_of_memory():
            step(tokens)
        return counter.get_total_flops()

    if device == "cpu":
        memory_of(device).limit_growth()
    # Operations are linear in the batch and, from the second segment on, in the segments. So short
    # sequences of one and two rows are counted, and the rest is arithmetic.
    linear = method.is_recurrent and not method.first_segment and shape.segments > 3
    least = 2 if linear else 1 if method.first_segment else shape.segments
    one = count(least, 1)
    total = one
    if shape.batch > 1:
        total += (shape.batch - 1) * (count(least, 2) - one)
    if linear:
        total += shape.batch * (shape.segments - least) * (count(least + 1, 1) - one)
    return total
