"""The choice of bfloat16 or float32, by the arithmetic of the device."""

import sys
from dataclasses import replace

import torch

from rmaat.errors import UserError
from rmaat.training.config import AUTO, RunConfig


def has_bf16_arithmetic(device: str) -> bool:
    """Return True if 'cpu' or 'cuda' has instructions that multiply bfloat16 matrices.

    Without them the arithmetic is emulated: on a processor without AVX-512 it was three hundred
    times slower than float32 (docs/how-to/memory_and_time.md).
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch.cpu.get_capabilities would be the public function, but only PyTorch 2.10 has it.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def with_precision(run: RunConfig, device: str) -> RunConfig:
    """Return the run with `bf16` 'auto' replaced by true or false for the device.

    Print a warning if the run sets `bf16` and the device has no bf16 arithmetic.

    Raises:
        UserError: for fp16 on a CPU.
    """
    if run.fp16 and device != "cuda":
        raise UserError("fp16 needs a CUDA device; use --bf16 auto, or leave it out")
    if run.bf16 == AUTO:
        return replace(run, bf16=not run.fp16 and has_bf16_arithmetic(device))
    if run.bf16:
        warn_of_slow_bf16(device)
    return run


def warn_of_slow_bf16(device: str) -> None:
    """Print a warning if the device has no bf16 arithmetic."""
    if not has_bf16_arithmetic(device):
        print(
            f"rmaat: warning: this {'GPU' if device == 'cuda' else 'processor'} has no bf16 "
            "arithmetic, and emulating it can take hundreds of times as long; "
            "use --bf16 false for float32",
            file=sys.stderr,
        )
