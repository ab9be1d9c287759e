"""`rmaat compare memory` and `rmaat compare speed`: from flags to files, and one line for every mistake."""

import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from statistics import median

import pytest

from rmaat.bench.gradient_check import build
from rmaat.bench.measure import MATRIX_SIZE, measure
from rmaat.cli.compare import VERBS
from rmaat.cli.main import main
from rmaat.machine.memory import ResidentMemory

TINY = [
    *("--segment_length", "32", "--batch", "1", "--hidden_size", "16", "--num_hidden_layers", "1"),
    *("--num_attention_heads", "2", "--intermediate_size", "32", "--device", "cpu"),
]


@pytest.fixture
def in_process(monkeypatch):
    """No processes are started and no limit is set on this one."""
    monkeypatch.setattr("rmaat.machine.processes.in_fresh_process", lambda function, *arguments: function(*arguments))
    peaks = itertools.count(2**20, 2**20)
    monkeypatch.setattr(ResidentMemory, "limit_growth", lambda self, allowance=None: None)
    monkeypatch.setattr(ResidentMemory, "used", lambda self: 0)
    monkeypatch.setattr(ResidentMemory, "peak", lambda self: next(peaks))
    monkeypatch.setitem(MATRIX_SIZE, "cpu", 64)
    monkeypatch.setenv("COLUMNS", "160")


@pytest.mark.parametrize("verb", VERBS)
def test_help_answers_without_heavy_imports(verb):
    script = (
        f"import sys; from rmaat.cli.main import main\n"
        f"try: main(['compare', {verb!r}, '--help'])\n"
        f"except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'transformers', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"usage: rmaat compare {verb}" in done.stdout


def test_the_overview_and_the_nearest_comparison(capsys):
    assert main(["compare", "--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {verb} " in told for verb in VERBS)
    assert main(["compare"]) == 2
    assert main(["compare", "memroy"]) == 2
    assert "did you mean 'memory'" in capsys.readouterr().err


def test_memory_from_flags_to_files(in_process, tmp_path, capsys):
    methods = ["--methods", "replay", "full", "one_segment"]
    command = ["compare", "memory", *TINY, *methods, "--output", str(tmp_path), "--tokens", "128", "64"]
    assert main([*command, "--limit", "2GiB", "--longest", "256"]) == 0
    out = capsys.readouterr().out
    assert "replay" in out
    assert str(tmp_path) in out
    found = json.loads((tmp_path / "memory.json").read_text())
    assert [(row["method"], row["tokens"]) for row in found["rows"]] == [
        *(("replay", 64), ("replay", 128), ("full", 64), ("full", 128)),
        ("one_segment", 32),
    ]
    assert found["gradients"][0]["error"] < 1e-4
    assert found["largest"][0]["tokens"] == 256
    assert (tmp_path / "memory.png").stat().st_size > 1000


@pytest.mark.slow
def test_speed_from_flags_to_files(in_process, tmp_path, capsys):
    methods = ["--methods", "full", "transformer"]
    assert main(["compare", "speed", *TINY, *methods, "--tokens", "64", "--output", str(tmp_path)]) == 0
    assert "transformer" in capsys.readouterr().out
    found = json.loads((tmp_path / "speed.json").read_text())
    assert [row["relative_to"]["full"] > 0 for row in found["rows"]] == [True, True]
    assert [len(row["step_seconds"]) for row in found["rows"]] == [10, 10]


@pytest.mark.parametrize("verb", ["memory", "speed"])
def test_a_killed_comparison_leaves_its_first_row_and_says_what_it_did(in_process, monkeypatch, tmp_path, capfd, verb):
    measured = []

    def interrupted(*arguments):
        if measured:
            raise KeyboardInterrupt
        measured.append(measure(*arguments))
        return measured[0]

    monkeypatch.setattr("rmaat.bench.comparison.measure", interrupted)
    methods = ["--methods", "one_segment", "replay", "--tokens", "64"]
    assert main(["compare", verb, *TINY, *methods, "--output", str(tmp_path)]) != 0
    assert [path.name for path in tmp_path.iterdir()] == [f"{verb}.json"]
    rows = json.loads((tmp_path / f"{verb}.json").read_text())["rows"]
    seconds = median(measured[0].step_seconds)
    assert [(row["method"], row["seconds"]) for row in rows] == [("one_segment", seconds)]
    lines = [line for line in capfd.readouterr().err.splitlines() if " ..." in line]
    assert re.fullmatch(r"gradients of one_segment \.\.\. \d+\.\d s", lines[verb == "speed"])
    assert re.fullmatch(r"replay, (64 tokens|round 1) \.\.\.", lines[-1])


def test_a_wrong_method_is_named_and_not_reported(in_process, monkeypatch, tmp_path, capsys):
    def build_other_dropout(method, shape, device):
        drop = 0.3 if method.backprop == "replay" else 0.1
        return build(method, replace(shape, hidden_dropout_prob=drop), device)

    monkeypatch.setattr("rmaat.bench.gradient_check.build", build_other_dropout)
    command = ["compare", "memory", *TINY, "--methods", "replay", "--tokens", "64"]
    assert main([*command, "--output", str(tmp_path)]) == 0
    assert "replay: not reported, gradients wrong by" in capsys.readouterr().out
    found = json.loads((tmp_path / "memory.json").read_text())
    assert found["rows"] == []
    assert "gradients wrong" in found["gradients"][0]["refusal"]


def test_any_model_is_measured_by_its_name(in_process, tmp_path):
    command = ["compare", "memory", *TINY, "--methods", "rlt", "--tokens", "64", "--steps", "1"]
    assert main([*command, "--output", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "memory.json").read_text())["rows"]
    assert (row["method"], row["tokens"], row["failure"]) == ("rlt", 64, None)


@pytest.mark.slow
def test_memory_in_fresh_processes(tmp_path):
    command = [sys.executable, "-m", "rmaat", "compare", "memory", *TINY, "--batch", "8", "--hidden_size", "64"]
    flags = ["--methods", "replay", "full", "--tokens", "256", "2048", "--output", str(tmp_path)]
    subprocess.run([*command, *flags], check=True, capture_output=True)
    peaks = {
        (row["method"], row["tokens"]): row["peak_bytes"]
        for row in json.loads((tmp_path / "memory.json").read_text())["rows"]
    }
    assert peaks["full", 2048] > 4 * peaks["full", 256]
    assert peaks["replay", 2048] < 2 * peaks["replay", 256]
    assert peaks["replay", 2048] < peaks["full", 2048] / 4


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--methods", "repaly"], "unknown method 'repaly'; did you mean 'replay'"),
        (["--methods", "full", "full"], "names one twice"),
        (["--tokens", "100"], "near multiples: 96, 128"),
        (["--limit", "2 giga"], "--limit '2 giga' is not a size"),
        (["--limit", "0GiB"], "is not a size"),
        (["--device", "cdua"], "did you mean 'cuda'"),
        (["--bathc", "2"], "did you mean '--batch'"),
        (["--num_attention_heads", "3"], "does not divide hidden_size"),
        (["--batch", "0"], "batch must be >= 1"),
        (["--steps", "0"], "steps must be >= 1"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, flags, said):
    assert main(["compare", "memory", *TINY, "--tokens", "64", "--output", str(tmp_path), *flags]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_package_asked_for_by_name_must_be_there(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("rmaat.bench.methods.Method.is_installed", lambda self: False)
    assert main(["compare", "memory", *TINY, "--methods", "memformer", "--output", str(tmp_path)]) == 2
    assert "pip install 'memformer==" in capsys.readouterr().err


def test_cuda_where_there_is_none(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["compare", "speed", *TINY[:-2], "--device", "cuda", "--output", str(tmp_path)]) == 2
    assert "PyTorch sees no CUDA device" in capsys.readouterr().err
