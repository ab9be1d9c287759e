"""What Windows lacks is not needed to import anything."""

import subprocess
import sys

import pytest

IMPORT_ALL = """
import importlib, pkgutil, sys
# On Linux these need what Windows lacks.
import datasets, filelock, matplotlib, numba, psutil, torch, torch._dynamo, transformers
sys.modules["resource"] = sys.modules["fcntl"] = None
import rmaat
names = [m.name for m in pkgutil.walk_packages(rmaat.__path__, "rmaat.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


@pytest.mark.slow
def test_every_module_is_imported_without_resource_and_fcntl():
    command = [sys.executable, "-c", IMPORT_ALL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) > 100


def test_the_peak_is_read_otherwise_without_proc_and_resource(monkeypatch):
    from rmaat.machine import memory

    class Information:
        peak_wset = 123

    monkeypatch.setattr(memory, "Path", lambda name: _Absent())
    monkeypatch.setattr(memory.psutil.Process, "memory_info", lambda self: Information())
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory.ResidentMemory().peak() == 123


class _Absent:
    def exists(self) -> bool:
        return False
