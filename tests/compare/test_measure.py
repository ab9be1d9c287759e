"""Peaks and operations against what is known by other means."""

import gc
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from rmaat.compare.measure import OutOfMemoryError, measure
from rmaat.compare.methods import METHODS, Method
from rmaat.compare.processes import KilledError, in_fresh_process
from rmaat.compare.rates import matrix_product_rate, model_operations
from rmaat.compare.shapes import Shape
from rmaat.compare.workload import Workload
from rmaat.machine.memory import ResidentMemory

MEBIBYTE = 2**20


def _hold_and_free():
    """The peak of 64 MiB held for a moment, after 256 MiB were held and freed before the baseline; then what a limit says."""
    before = torch.ones(256 * MEBIBYTE // 4)
    del before
    gc.collect()
    memory = ResidentMemory()
    memory.return_freed()
    memory.reset_peak()
    baseline = memory.used()
    held = torch.ones(64 * MEBIBYTE // 4)
    del held
    peak = memory.peak() - baseline
    memory.limit_growth(64 * MEBIBYTE)
    torch.ones(16 * MEBIBYTE // 4)
    try:
        torch.ones(128 * MEBIBYTE // 4)
    except RuntimeError as failure:
        return peak, str(failure)
    return peak, "no limit"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process's peak cannot be reset nor its growth limited")
def test_peak_is_that_of_the_steps_alone_and_the_limit_holds():
    peak, failure = in_fresh_process(_hold_and_free)
    assert peak == pytest.approx(64 * MEBIBYTE, rel=0.05)
    assert "can't allocate memory" in failure


def test_a_process_that_ends_without_an_answer_is_told():
    with pytest.raises(KilledError, match="killed"):
        in_fresh_process(signal.raise_signal, signal.SIGKILL)
    with pytest.raises(KilledError, match="ended with status 9"):
        in_fresh_process(os._exit, 9)


def test_a_step_past_its_allowance_fails_instead_of_the_machine(monkeypatch):
    limits = []
    monkeypatch.setattr(ResidentMemory, "limit_growth", lambda self, allowance: limits.append(allowance))

    def build(shape, device):
        def step(tokens):
            if tokens > 128:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")

        return Workload(torch.nn.Linear(1, 1), step)

    monkeypatch.setitem(METHODS._entries, "greedy", Method("", build))
    with pytest.raises(OutOfMemoryError):
        measure("greedy", Shape(tokens=512), "cpu", 0, 1, allowance=1000)
    assert limits == [1000]


@pytest.mark.parametrize("name", ["replay", "checkpoint", "rmt", "transformer_checkpoint", "one_segment"])
def test_operations_by_arithmetic_are_those_of_one_whole_count(name, tiny):
    from torch.utils.flop_counter import FlopCounterMode

    from rmaat.compare.rates import _CPU_ATTENTION

    shape = replace(tiny, tokens=96, batch=3)
    method = METHODS[name]
    whole = METHODS[method.reference or name].build(shape, "cpu")
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        whole.step(96)
    assert model_operations(name, shape, "cpu") == counter.get_total_flops()


def test_operations_of_the_transformer_by_hand(tiny):
    """Forward 2 multiplied numbers a product; backward twice that, and flash attention's five products of N x N."""
    n, d, f, layers, rows = 64, 16, 32, 2, 2
    linear = 2 * n * (d * 3 * d + d * d + 2 * d * f)
    attention = 2 * n * n * d
    head = 2 * d * 2
    # The embedding's sum needs no product, but the first layer's inputs have gradients, as all others.
    expected = rows * (layers * (3 * linear + (2 + 5) * attention) + 3 * head)
    assert model_operations("transformer", tiny, "cpu") == expected


def test_a_rate_is_positive(monkeypatch):
    monkeypatch.setitem(__import__("rmaat.compare.rates", fromlist=["x"]).MATRIX_SIZE, "cpu", 64)
    assert matrix_product_rate("cpu", bf16=False) > 1e6


class _LocalError(Exception):
    """Pickled as a call without its second argument, which then fails."""

    def __init__(self, text, second):
        super().__init__(text)


def _fail():
    raise _LocalError("no such thing", 2)


def test_an_error_that_cannot_be_sent_is_told_by_its_name_and_text():
    with pytest.raises(RuntimeError, match="_LocalError: no such thing"):
        in_fresh_process(_fail)


def _unsendable():
    return lambda: 1


def test_a_result_that_cannot_be_sent_is_told():
    with pytest.raises(Exception, match="pickle"):
        in_fresh_process(_unsendable)


def test_the_process_ends_with_the_one_that_asked():
    """Whoever is alive holds the pipe's other end: reading to its end is waiting for both."""
    body = "import signal; print('ready', flush=True); signal.pause()"
    program = (
        "import signal; from rmaat.cli.main import _unwind; from rmaat.compare.processes import in_fresh_process\n"
        f"if __name__ == '__main__':\n signal.signal(signal.SIGTERM, _unwind)\n in_fresh_process(exec, {body!r}, {{}})\n"
    )
    asking = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    assert asking.stdout.readline() == "ready\n"
    asking.terminate()
    assert asking.stdout.read() == ""
    assert asking.wait() == 128 + signal.SIGTERM
