"""Peaks and operations against what is known by other means."""

from dataclasses import replace
from unittest.mock import Mock

import pytest
from torch.utils.flop_counter import FlopCounterMode

from rmaat.bench.measure import (
    _CPU_ATTENTION,
    MATRIX_SIZE,
    matrix_product_rate,
    measure,
    model_operations,
)
from rmaat.bench.methods import METHODS
from rmaat.bench.models import build
from rmaat.bench.shape import Shape
from rmaat.machine.memory import ResidentMemory
from rmaat.machine.processes import OutOfMemoryError


def test_a_step_past_its_allowance_fails_instead_of_the_machine(monkeypatch):
    limits = []
    monkeypatch.setattr(ResidentMemory, "limit_growth", lambda self, allowance: limits.append(allowance))

    def greedy(method, shape, device):
        step = build(method, shape, device)
        if shape.tokens > 128:
            message = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"
            return replace(step, forward=Mock(side_effect=RuntimeError(message)))
        return step

    monkeypatch.setattr("rmaat.bench.measure.build", greedy)
    with pytest.raises(OutOfMemoryError):
        measure("one_segment", Shape(tokens=512), "cpu", 0, 1, allowance=1000)
    assert limits == [1000]


@pytest.mark.parametrize("name", ["replay", "checkpoint", "rmt", "transformer_checkpoint", "one_segment"])
def test_operations_by_arithmetic_are_those_of_one_whole_count(name, tiny):
    shape = replace(tiny, tokens=96, batch=3)
    method = METHODS[name]
    whole = build(method.reference or method, shape, "cpu")
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        whole(96)
    assert model_operations(name, shape, "cpu") == counter.get_total_flops()


def test_operations_of_the_transformer_by_hand(tiny):
    """Backward has twice the products of forward, and flash attention five of N x N instead of two."""
    n, d, f, layers, rows = 64, 16, 32, 2, 2
    linear = 2 * n * (d * 3 * d + d * d + 2 * d * f)
    attention = 2 * n * n * d
    head = 2 * d * 2
    # The embedding needs no product, but the first layer's inputs have gradients too.
    expected = rows * (layers * (3 * linear + (2 + 5) * attention) + 3 * head)
    assert model_operations("transformer", tiny, "cpu") == expected


def test_a_rate_is_positive(monkeypatch):
    monkeypatch.setitem(MATRIX_SIZE, "cpu", 64)
    assert matrix_product_rate("cpu", bf16=False) > 1e6
