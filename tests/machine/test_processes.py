"""Fresh processes: their memory is their own, failures arrive, none outlives its parent."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rmaat.machine.memory import ResidentMemory
from rmaat.machine.processes import OutOfMemoryError, in_fresh_process

MEBIBYTE = 2**20


def _hold_and_free():
    """Return the peak of 64 MiB, allocated after 256 MiB were freed, and the message of a limit."""
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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux resets the peak of a process and limits its growth")
def test_peak_is_that_of_the_steps_alone_and_the_limit_holds():
    peak, failure = in_fresh_process(_hold_and_free)
    assert peak == pytest.approx(64 * MEBIBYTE, rel=0.05)
    assert "can't allocate memory" in failure


def test_a_process_that_ends_without_an_answer_is_an_error():
    with pytest.raises(OutOfMemoryError, match="killed"):
        in_fresh_process(signal.raise_signal, signal.SIGKILL)
    with pytest.raises(OutOfMemoryError, match="ended with status 9"):
        in_fresh_process(os._exit, 9)


class _LocalError(Exception):
    """Pickled as a call without its second argument, which then fails."""

    def __init__(self, text, second):
        super().__init__(text)


def _fail():
    raise _LocalError("no such thing", 2)


def test_an_error_that_cannot_be_pickled_is_a_runtime_error_with_its_text():
    with pytest.raises(RuntimeError, match="_LocalError: no such thing"):
        in_fresh_process(_fail)


def _not_picklable():
    return lambda: 1


def test_a_result_that_cannot_be_pickled_is_an_error():
    with pytest.raises(Exception, match="pickle"):
        in_fresh_process(_not_picklable)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_the_process_ends_with_the_one_that_asked(number, status):
    """Whoever is alive holds the pipe's other end: reading to its end is waiting for both.

    What the call prints goes to standard error.
    """
    body = "import signal; print('ready', flush=True); signal.pause()"
    program = (
        "import signal; from rmaat.cli.main import _unwind; from rmaat.machine.processes import in_fresh_process\n"
        f"if __name__ == '__main__':\n signal.signal(signal.SIGTERM, _unwind)\n in_fresh_process(exec, {body!r}, {{}})\n"
    )
    command = [sys.executable, "-c", program]
    asking = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert asking.stdout is not None
    assert asking.stdout.readline() == "ready\n"
    asking.send_signal(number)
    assert asking.stdout.read() == ""
    assert asking.wait() == status


def test_a_process_ends_with_a_parent_that_is_killed_outright():
    """The child would wait for ever."""
    waits = "from rmaat.machine.processes import end_with_parent; import os, signal; "
    waits += "end_with_parent(os.getppid()); "
    waits += "print(os.getpid(), flush=True); signal.pause()"
    parent = (
        "import subprocess, sys, signal; "
        f"subprocess.Popen([sys.executable, '-c', {waits!r}], start_new_session=True); "
        "signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    child = int(process.stdout.readline())
    assert Path(f"/proc/{child}").exists() or os.name != "posix"
    process.kill()
    process.wait()
    assert process.stdout.read() == b"", "the pipe closes once the child has ended too"
    process.stdout.close()
