"""Locks between processes."""

import subprocess
import sys

import pytest

from rmaat.machine.locks import LockHeldError, locked

TRY = """
import sys
from pathlib import Path
from rmaat.machine.locks import LockHeldError, locked
try:
    with locked(Path(sys.argv[1]), seconds=0):
        print("free")
except LockHeldError:
    print("held")
"""


def test_another_process_finds_the_lock_held_until_it_is_freed(tmp_path):
    def tried() -> str:
        command = [sys.executable, "-c", TRY, str(tmp_path / ".lock")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with locked(tmp_path / ".lock"):
        assert tried() == "held"
    assert tried() == "free"
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / ".lock"):
        raise KeyboardInterrupt
    assert tried() == "free"


def test_errors_within_go_through_and_a_missing_folder_is_one(tmp_path):
    with pytest.raises(LockHeldError, match="from within"), locked(tmp_path / ".lock", seconds=0):
        raise LockHeldError("from within")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), locked(tmp_path / "file" / ".lock", seconds=0):
        pass
