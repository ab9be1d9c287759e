"""What the machine can do, and what a step does: operations of matrix products."""

import time
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from rmaat.compare.measure import telling_out_of_memory
from rmaat.compare.methods import METHODS
from rmaat.compare.shapes import Shape
from rmaat.machine.memory import memory_of

PRODUCTS = 10
MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}


def matrix_product_rate(device: str, bf16: bool) -> float:
    """Operations a second of a large square matrix product, the median of ten; a multiplication and an addition are two."""
    size = MATRIX_SIZE[device]
    dtype = torch.bfloat16 if bf16 else torch.float32
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    seconds = []
    for index in range(PRODUCTS + 2):
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        if device == "cuda":
            torch.cuda.synchronize()
        if index >= 2:
            seconds.append(time.perf_counter() - started)
    return 2 * size**3 / median(seconds)


def model_operations(name: str, shape: Shape, device: str) -> int:
    """Operations of one step's matrix products, forward and backward, without anything computed twice.

    Counted on the method's reference where it has one, so that replay is not work. A step's operations are linear in the
    batch and, from the second segment on, in the number of segments: short sequences of one and two rows are counted and the
    rest is arithmetic. On a CPU it limits what this process may take from then on.

    Raises:
        OutOfMemoryError: where the counted steps want more than most of what is free.
    """
    method = METHODS[name]
    counted = METHODS[method.reference or name]

    def count(segments: int, batch: int) -> int:
        tokens = segments * shape.segment_length
        workload = counted.build(replace(shape, tokens=tokens, batch=batch, torch_compile=False), device)
        with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter, telling_out_of_memory():
            workload.step(tokens)
        return counter.get_total_flops()

    if device == "cpu":
        memory_of(device).limit_growth()
    # A step that reads the whole at once has no segments to be linear in, one that reads the first has one.
    linear = method.reads == "segments" and shape.segments > 3
    least = 2 if linear else 1 if method.reads == "first" else shape.segments
    one = count(least, 1)
    total = one
    if shape.batch > 1:
        total += (shape.batch - 1) * (count(least, 2) - one)
    if linear:
        total += shape.batch * (shape.segments - least) * (count(least + 1, 1) - one)
    return total


def _attention(query: Any, key: Any, value: Any, *rest: Any, **others: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *rest: Any, **others: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# PyTorch's counter knows the CUDA kernels only; the shapes and products of the CPU's are the same.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
