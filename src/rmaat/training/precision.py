"""Whether bfloat16 is worth its name on a device."""

import sys
from dataclasses import replace

import torch

from rmaat.errors import UserError
from rmaat.training.config import AUTO, RunConfig


def has_bf16_arithmetic(device: str) -> bool:
    """Whether 'cpu' or 'cuda' multiplies matrices in bfloat16 by instructions of its own.

    Without them a processor takes each number apart: one without AVX-512 was seen to be three hundred times slower than in float32
    (docs/how-to/memory_and_time.md).
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # What torch.cpu.get_capabilities tells in public only since 2.10.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def with_precision(run: RunConfig, device: str) -> RunConfig:
    """The run with 'auto' of `bf16` made true or false for the device; where it asks for a slow bf16, a warning is printed.

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
    """Print a line where bf16 would be emulated."""
    if not has_bf16_arithmetic(device):
        print(
            f"rmaat: warning: this {'GPU' if device == 'cuda' else 'processor'} has no bf16 arithmetic, and emulating it can take "
            "hundreds of times as long: --bf16 false is float32",
            file=sys.stderr,
        )
