import json
import os
import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rmaat.astrocyte import MacroModel, figures, retention_factors
from rmaat.cli.main import main


def test_everything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(figures.STYLE, "figure.dpi", 50)
    arguments = ["--output", str(tmp_path / "new" / "[" / "y]"), "--cycles", "3", "--tau_long", "20", "--num_pre", "2"]
    assert main(["simulate", *arguments, "--sweep", "tau_long=10:120:2", "--samples_per_cycle", "20"]) == 0
    folder = tmp_path / "new" / "[" / "y]"
    model = MacroModel(tau_long=20.0, num_pre=2)
    assert MacroModel.from_dict(json.loads((folder / "model.json").read_text())) == model

    traces = pq.read_table(folder / "traces.parquet")
    expected = model.simulate(cycles=3, samples_per_cycle=20)
    np.testing.assert_array_equal(traces["time_s"], expected.time)
    np.testing.assert_array_equal(traces["long_term_1_2"], expected.long_term[:, 1, 2])

    factors = pq.read_table(folder / "factors.parquet").to_pylist()
    assert [row["ltp"] for row in factors if row["total"] == 8] == retention_factors(8, model=model).tolist()
    swept = pq.read_table(folder / "sweep_tau_long.parquet").to_pylist()
    assert [row["refusal"] == "" for row in swept] == [True, False]
    assert swept[1]["factor_1"] is None

    for name in ("traces", "long_term", "short_term_map", "memory", "sweep_tau_long"):
        with Image.open(folder / f"{name}.png") as image:
            assert min(image.size) > 200
    printed = capsys.readouterr().out
    assert f"{retention_factors(4, model=model)[0]:.4f}" in printed
    assert f"written to {folder}" in printed


def test_a_refused_and_latching_model_can_still_be_looked_at(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "write", lambda figure, path: path.touch())
    assert (
        main(["simulate", "--output", str(tmp_path), "--cycles", "1", "--tau_long", "500", "--decay_short", "1"]) == 2
    )
    warned, refused = capsys.readouterr().err.splitlines()
    assert warned.startswith("rmaat: warning: coupling 0.3 is not below the bound 0")
    assert "does not fall in cycle 2" in refused
    assert (tmp_path / "traces.png").exists()
    assert not (tmp_path / "factors.parquet").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tau_long", "-1"], "tau_long must be a number >= 1e-06"),
        (["--tau_long", "long"], "tau_long"),
        (["--tau_lonk", "1"], "tau_lonk"),
        (["--psi", "tahn"], "did you mean 'tanh'"),
        (["--cycles", "0"], "cycles must be a whole number"),
        (["--sweep", "tau_lonk=1:2:3"], "did you mean 'tau_long'"),
        (["--sweep_segments", "0"], "sweep_segments"),
        (["--positions", "[[0, 0]]"], "9 synapses"),
    ],
)
def test_mistakes_are_one_line(flags, said, tmp_path, capsys):
    assert main(["simulate", "--output", str(tmp_path), *flags]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rmaat.astrocyte.simulate.simulate", lambda *_, **__: pytest.fail("work was done"))
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(["simulate", "--output", str(blocked)]) == 2
    assert "cannot write to the output folder" in capsys.readouterr().err


def test_help_names_every_field_and_comes_at_once():
    environment = {**os.environ, "COLUMNS": "120"}
    start = time.perf_counter()
    command = [sys.executable, "-X", "importtime", "-m", "rmaat", "simulate", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert time.perf_counter() - start < 5
    for field in fields(MacroModel):
        assert f"--{field.name}" in done.stdout
    assert "seconds, > 0" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "scipy", "matplotlib", "pyarrow"}
