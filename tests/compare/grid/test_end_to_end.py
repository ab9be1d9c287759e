"""A real grid of two models, killed outright and begun again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from rmaat.compare.grid.cells import make_cells
from rmaat.compare.grid.presets import GRIDS
from rmaat.compare.grid.results import RESULTS, read
from rmaat.training.folder import last_whole_checkpoint


@pytest.mark.slow
def test_a_killed_grid_resumes_to_the_same_result(listops_dir, tmp_path):
    def command(output):
        words = ["compare", "accuracy", "--preset", "smoke", "--models", "rmaat", "rmt", "--seeds", "1"]
        words += ["--max_steps", "30", "--workers", "1", "--output", str(output), "--data_dir", str(listops_dir)]
        return [sys.executable, "-m", "rmaat", *words]

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    first, second = make_cells(GRIDS["smoke"], models=["rmaat", "rmt"], seeds=1)
    process = subprocess.Popen(command(killed), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while last_whole_checkpoint(second.folder(killed)) is None:
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(read(killed).records) == [first.key]
    begun = (first.folder(killed) / "metrics.json").stat().st_mtime_ns

    done = subprocess.run(command(killed), capture_output=True, text=True, check=True)
    assert "2 cells, 1 of them finished before" in done.stderr
    assert (first.folder(killed) / "metrics.json").stat().st_mtime_ns == begun, "a finished cell is not run again"
    lines = [json.loads(line) for line in (killed / RESULTS).read_text().splitlines()]
    assert [line["model"] for line in lines] == ["rmaat", "rmt"]
    assert "--resume" in lines[1]["command"]

    subprocess.run(command(whole), capture_output=True, check=True, env={**os.environ})
    for key, record in read(whole).records.items():
        for name in ("test_accuracy", "test_loss", "train_tokens", "num_parameters", "steps"):
            assert record.values[name] == read(killed).records[key].values[name], (key, name)
    assert subprocess.run([sys.executable, "-m", "rmaat", "compare", "table", str(killed)], check=False).returncode == 0
