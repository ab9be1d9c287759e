"""A real grid of two models, killed outright and begun again."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rmaat.grid.cells import make_cells
from rmaat.grid.outcomes import read_outcomes
from rmaat.grid.presets import GRIDS
from rmaat.training.checkpoints import last_usable_checkpoint


@pytest.mark.slow
def test_a_killed_grid_resumes_to_the_same_result(listops_dir, tmp_path):
    def command(output):
        words = "compare accuracy --preset smoke --models rmaat rmt --seeds 1 --max_steps 30"
        folders = ["--output", str(output), "--data_dir", str(listops_dir)]
        return [sys.executable, "-m", "rmaat", *words.split(), "--workers", "1", *folders]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    first, second = make_cells(GRIDS["smoke"], models=["rmaat", "rmt"], seeds=1)
    process = subprocess.Popen(command(killed), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while last_usable_checkpoint(second.folder(killed)) is None:
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [outcome.cell.key for outcome in read_outcomes(killed)] == [first.key]
    begun = (first.folder(killed) / "metrics.json").stat().st_mtime_ns

    done = subprocess.run(command(killed), capture_output=True, text=True, check=True)
    assert "2 cells, 1 of them finished before" in done.stderr
    written = (first.folder(killed) / "metrics.json").stat().st_mtime_ns
    assert written == begun, "a finished cell is not run again"
    resumed = read_outcomes(killed)
    assert [outcome.cell.model for outcome in resumed] == ["rmaat", "rmt"]
    assert "--overwrite" in resumed[0].metrics["command"]
    assert "--resume" in resumed[1].metrics["command"]

    subprocess.run(command(whole), capture_output=True, check=True, env={**os.environ})
    undisturbed = read_outcomes(whole)
    assert [outcome.cell.key for outcome in undisturbed] == [first.key, second.key]
    for one, other in zip(undisturbed, resumed, strict=True):
        for name in ("test_accuracy", "test_loss", "train_tokens", "num_parameters", "steps"):
            assert one.metrics[name] == other.metrics[name], (one.cell, name)
    table = [sys.executable, "-m", "rmaat", "compare", "table", str(killed)]
    assert subprocess.run(table, check=False).returncode == 0
