"""Peak memory of training steps, against arrays of known size."""

import sys

import numpy as np
import pytest
import torch

from rmaat.training.memory import PeakMemory

MIB = 2**20


@pytest.mark.skipif(
    sys.platform != "linux" or torch.cuda.is_available(), reason="counts resident memory as Linux tells it"
)
def test_a_steps_memory_is_what_it_allocates_above_what_was_there():
    meter = PeakMemory()
    loading = np.ones(300 * MIB, np.uint8)
    del loading
    kept = np.ones(100 * MIB, np.uint8)
    for size in (40, 80, 20):
        meter.begin_step(parameter_bytes=50 * MIB)
        np.ones(size * MIB, np.uint8)
        meter.end_step()
    assert meter.training == pytest.approx((80 + 50) * MIB, abs=4 * MIB)
    assert meter.whole > 300 * MIB
    assert len(kept) == 100 * MIB
