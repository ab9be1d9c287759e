"""Peak memory of training steps, against blocks of known size.

The blocks are mapped, not allocated: an allocator may put one where something was freed before and keep it resident afterwards,
which depends on all that the process did earlier.
"""

import mmap
import sys

import pytest
import torch

from rmaat.training.peak_memory import PeakMemory

MIB = 2**20


def resident(size_MiB: int) -> mmap.mmap:
    """A block of resident memory; closing it gives it back."""
    block = mmap.mmap(-1, size_MiB * MIB)
    for page in range(0, len(block), mmap.PAGESIZE):
        block[page] = 1
    return block


@pytest.mark.skipif(
    sys.platform != "linux" or torch.cuda.is_available(), reason="counts resident memory as Linux tells it"
)
def test_a_steps_memory_is_what_it_allocates_above_what_was_there():
    meter = PeakMemory()
    resident(300).close()
    with resident(100):
        for size_MiB in (40, 80, 20):
            meter.begin_step(parameter_bytes=50 * MIB)
            resident(size_MiB).close()
            meter.end_step()
    assert meter.training_peak == pytest.approx((80 + 50) * MIB, abs=4 * MIB)
    assert meter.process_peak > 300 * MIB
