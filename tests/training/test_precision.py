"""bf16 where the device has the arithmetic for it, and a word where it has not."""

from dataclasses import replace
from pathlib import Path

import pytest

from rmaat.cli.main import main
from rmaat.training import precision
from rmaat.training.config import RunConfig
from rmaat.training.finished_run import open_run
from rmaat.training.run import evaluate, train


@pytest.mark.parametrize("has_bf16", [False, True])
@pytest.mark.parametrize(
    ("asked", "fp16", "resolved"), [("auto", False, None), ("auto", True, False), (False, False, False)]
)
def test_auto_is_what_the_device_has(monkeypatch, has_bf16, asked, fp16, resolved):
    monkeypatch.setattr(precision, "has_bf16_arithmetic", lambda device: has_bf16)
    run = precision.with_precision(RunConfig(bf16=asked, fp16=fp16), "cuda")
    assert run.bf16 is (has_bf16 if resolved is None else resolved)


def test_fp16_on_a_cpu_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["train", "--fp16", "true", "--output_dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "rmaat: error: fp16 needs a CUDA device; use --bf16 auto, or leave it out\n"
    assert not (tmp_path / "run").exists()


def test_a_run_in_float16_is_measured_on_a_cpu_too(monkeypatch, tiny):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    train(replace(tiny, max_steps=1, eval_steps=1))
    finished = open_run(Path(tiny.output_dir))
    in_float16 = replace(finished, source=replace(finished.source, run=replace(finished.config, fp16=True)))
    assert evaluate(in_float16) == evaluate(finished)


def test_a_slow_bf16_is_done_and_told(monkeypatch, capsys):
    monkeypatch.setattr(precision, "has_bf16_arithmetic", lambda device: False)
    assert precision.with_precision(RunConfig(bf16=True), "cpu").bf16 is True
    assert "--bf16 false" in capsys.readouterr().err
    monkeypatch.setattr(precision, "has_bf16_arithmetic", lambda device: True)
    assert precision.with_precision(RunConfig(bf16=True), "cpu").bf16 is True
    assert capsys.readouterr().err == ""


def test_this_processor_says_what_its_flags_say():
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        pytest.skip("needs /proc/cpuinfo")
    flags = cpuinfo.read_text()
    assert precision.has_bf16_arithmetic("cpu") == ("avx512_bf16" in flags or "amx_bf16" in flags)
