"""Resumed runs: equal to straight ones, and refused if they would not be."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.training.checkpoints import SEAL, last_usable_checkpoint
from rmaat.training.config import RunConfig
from rmaat.training.finished_run import open_run
from rmaat.training.run import evaluate, train
from rmaat.training.trainer import SegmentTrainer


def stop_before(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let training raise KeyboardInterrupt before a step, counted from 0."""
    honest = SegmentTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return honest(self, *args, **kwargs)

    monkeypatch.setattr(SegmentTrainer, "training_step", interrupted)


def interrupt(run: RunConfig, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Train a run up to a step."""
    with monkeypatch.context() as patch:
        stop_before(patch, step)
        with pytest.raises(KeyboardInterrupt):
            train(run)


def assert_equal_weights(one: Path, other: Path) -> None:
    """Compare two safetensors files to the bit."""
    weights, others = load_file(one), load_file(other)
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, others[name]), name


@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 7])
def test_resuming_gives_the_weights_of_an_uninterrupted_run(tiny, straight, monkeypatch, capsys, step):
    """Before the first checkpoint the resumed run begins anew, and says so."""
    parts = replace(tiny, output_dir=f"{tiny.output_dir}-parts")
    interrupt(parts, monkeypatch, step)
    capsys.readouterr()
    resumed = train(replace(parts, resume=True))
    assert ("begins at the first step" in capsys.readouterr().err) == (step < 4)
    for name in ("checkpoint-12/model.safetensors", "model.safetensors"):
        assert_equal_weights(straight.output_dir / name, resumed.output_dir / name)
    for name in ("test_loss", "eval_loss", "train_tokens", "best_step"):
        assert straight.metrics[name] == resumed.metrics[name], name


def test_a_resumed_run_meets_the_same_changed_examples_whatever_the_number_of_workers(tiny, monkeypatch):
    """256 examples are an epoch of 8 steps, and the run stops in the second."""
    run = replace(tiny, augmentation=True, per_device_train_batch_size=32, eval_steps=5)
    whole = train(run)
    parts = replace(run, output_dir=f"{run.output_dir}-parts")
    interrupt(parts, monkeypatch, 11)
    resumed = train(replace(parts, resume=True, dataloader_num_workers=2))
    assert resumed.metrics["stages"][-1]["step"] == 10
    assert_equal_weights(
        whole.output_dir / "checkpoint-12/model.safetensors", resumed.output_dir / "checkpoint-12/model.safetensors"
    )


@pytest.mark.slow
def test_a_run_stops_once_its_patience_is_over_and_a_resumed_run_at_the_same_step(tiny, monkeypatch):
    """At a rate so high that the loss rises."""
    run = replace(tiny, learning_rate=0.3, max_grad_norm=0.0, metric_for_best_model="loss", max_steps=60)
    run = replace(run, eval_steps=2, save_total_limit=30, early_stopping_patience=3)
    whole = train(run)
    steps = whole.metrics["steps"]
    state = json.loads((whole.output_dir / f"checkpoint-{steps}" / "trainer_state.json").read_text())
    losses = [report["eval_loss"] for report in state["log_history"] if "eval_loss" in report]
    assert len(losses) == steps // 2 < 30
    for count in range(1, len(losses) + 1):
        since_best = count - 1 - losses.index(min(losses[:count]))
        assert (since_best == 3) == (count == len(losses)), losses
    assert whole.metrics["best_step"] == steps - 6
    parts = replace(run, output_dir=f"{run.output_dir}-parts")
    interrupt(parts, monkeypatch, steps - 1)
    resumed = train(replace(parts, resume=True))
    assert resumed.metrics["steps"] == steps
    # The run has ended, so resuming it trains no further step.
    monkeypatch.setattr(SegmentTrainer, "training_step", lambda *arguments: 1 / 0)
    again = train(replace(parts, resume=True, max_steps=80))
    assert again.metrics["steps"] == steps
    assert_equal_weights(whole.output_dir / "model.safetensors", again.output_dir / "model.safetensors")


def test_resuming_in_an_empty_folder_trains_a_new_run(tiny, capsys):
    result = train(replace(tiny, max_steps=1, eval_steps=1, resume=True))
    assert "begins at the first step" in capsys.readouterr().err
    assert result.metrics["steps"] == 1


def test_a_finished_run_without_checkpoints_is_not_begun_anew(tiny, tmp_path, straight):
    folder = tmp_path / "copy"
    shutil.copytree(straight.output_dir, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    with pytest.raises(UserError, match="is finished, and it has no checkpoint"):
        train(replace(tiny, output_dir=str(folder), max_steps=20, resume=True))
    assert (folder / "model.safetensors").exists()


def test_a_resumed_run_replaces_whatever_lies_in_place_of_its_results(tiny, tmp_path, straight):
    folder = tmp_path / "copy"
    shutil.copytree(straight.output_dir, folder)
    for name in ("metrics.json", "config.json", "model.safetensors", "checkpoint-12/optimizer.pt"):
        (folder / name).unlink()
        (folder / name).mkdir()
    resumed = train(replace(tiny, output_dir=str(folder), resume=True))
    assert_equal_weights(straight.output_dir / "model.safetensors", folder / "model.safetensors")
    assert resumed.metrics["test_loss"] == straight.metrics["test_loss"]


def test_a_run_with_another_setting_is_refused_and_changes_nothing(tiny, tmp_path, straight):
    folder = tmp_path / "copy"
    shutil.copytree(straight.output_dir, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name, value in {"seed": 1, "hidden_size": 32, "num_segments": 1, "curriculum": True}.items():
        with pytest.raises(UserError, match=f"resume: .*{name} is {value}"):
            train(replace(tiny, output_dir=str(folder), **{name: value}, resume=True))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_other_data_of_the_same_name_is_refused_and_moved_data_is_not(tiny, monkeypatch, listops_dir, tmp_path):
    interrupt(tiny, monkeypatch, 7)
    moved = tmp_path / "moved"
    shutil.copytree(listops_dir, moved, ignore=shutil.ignore_patterns(".rmaat_cache"))
    resumed = train(replace(tiny, data_dir=str(moved), resume=True))
    assert resumed.metrics["steps"] == 12
    other = tmp_path / "other"
    sizes = ["--num_train", "256", "--num_val", "48", "--num_test", "40", "--seed", "1"]
    assert main(["data", "listops_short", "--data_dir", str(other), *sizes]) == 0
    with pytest.raises(UserError, match=r"the data of .* has changed since the run began"):
        train(replace(tiny, data_dir=str(other), max_steps=16, resume=True))


def test_settings_that_may_differ_are_recorded_with_their_step(tiny, monkeypatch):
    interrupt(tiny, monkeypatch, 7)
    done = train(replace(tiny, resume=True, max_steps=14, logging_steps=1, replay_budget=1))
    first, second = done.metrics["stages"]
    assert (first["step"], first["changed"]) == (0, {})
    assert second["step"] == 4
    assert second["changed"] == {"max_steps": [12, 14], "logging_steps": [2, 1], "replay_budget": [None, 1]}
    # What a second stage trained after its last checkpoint is gone, and the stage with it.
    again = replace(tiny, resume=True, max_steps=18)
    interrupt(again, monkeypatch, 15)
    metrics = train(replace(again, max_steps=16)).metrics
    assert [stage["step"] for stage in metrics["stages"]] == [0, 4, 14]
    assert metrics["stages"][-1]["changed"]["max_steps"] == [14, 16]


def test_an_interrupted_overwrite_cannot_be_resumed_with_the_old_weights(tiny, monkeypatch):
    train(replace(tiny, max_steps=4))
    with monkeypatch.context() as patch:
        patch.setattr("rmaat.training.run_folder.remove", lambda checkpoint: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(replace(tiny, seed=1, overwrite=True))
    with pytest.raises(UserError, match=r"has no run.yaml, because a new run was interrupted"):
        train(replace(tiny, seed=1, resume=True))
    with pytest.raises(UserError, match="already holds a run"):
        train(replace(tiny, seed=1))
    train(replace(tiny, seed=1, max_steps=4, overwrite=True))
    assert not (Path(tiny.output_dir) / "checkpoint-12").exists()


def test_a_moved_run_resumes_with_its_best_checkpoint(tiny, monkeypatch):
    """The trainer's state holds the path of the best checkpoint from before the move."""
    run = replace(tiny, learning_rate=0.3, max_grad_norm=0.0, metric_for_best_model="loss", save_total_limit=3)
    whole = train(run)
    assert whole.metrics["best_step"] < whole.metrics["steps"]
    parts = replace(run, output_dir=f"{run.output_dir}-parts")
    interrupt(parts, monkeypatch, 11)
    moved = Path(f"{run.output_dir}-moved")
    Path(parts.output_dir).rename(moved)
    resumed = train(replace(parts, output_dir=str(moved), resume=True))
    assert resumed.metrics["best_step"] == whole.metrics["best_step"]
    assert_equal_weights(whole.output_dir / "model.safetensors", moved / "model.safetensors")


def test_a_run_whose_newest_checkpoint_lost_a_file_resumes_from_the_one_before(tiny, straight, monkeypatch, caplog):
    interrupt(tiny, monkeypatch, 11)
    (Path(tiny.output_dir) / "checkpoint-8" / "optimizer.pt").unlink()
    resumed = train(replace(tiny, resume=True))
    assert "optimizer.pt is missing; the run continues from checkpoint-4" in caplog.text
    assert resumed.metrics["stages"][-1]["step"] == 4
    assert_equal_weights(straight.output_dir / "model.safetensors", resumed.output_dir / "model.safetensors")


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_trains(tiny, monkeypatch):
    monkeypatch.setattr("rmaat.training.run_folder.LOCK_SECONDS", 0)
    honest, refusals = SegmentTrainer.training_step, []

    def meanwhile(self, *args, **kwargs):
        if self.state.global_step == 5:
            for again in ({"overwrite": True}, {"resume": True}, {}):
                with pytest.raises(UserError, match="another run is writing") as refusal:
                    train(replace(tiny, **again))
                refusals.append(refusal)
        return honest(self, *args, **kwargs)

    monkeypatch.setattr(SegmentTrainer, "training_step", meanwhile)
    assert train(tiny).metrics["steps"] == 12
    assert len(refusals) == 3


TWO_PROCESSES = """
import sys
from dataclasses import replace
from pathlib import Path
from rmaat.training.config import RunConfig
from rmaat.training.run import train

for path in map(Path, sys.argv[1:]):
    run = RunConfig.from_yaml(path)
    train(run)
    for stop in (3, 8, 15) if run.curriculum else (15,):
        parts = replace(run, output_dir=f"{run.output_dir}-{stop}")
        train(replace(parts, max_steps=stop))
        train(replace(parts, resume=True))
"""


@pytest.mark.slow
def test_two_processes_resume_in_every_epoch_to_the_weights_of_a_straight_run(texts, tmp_path):
    """The run of 20 steps has 3 epochs, and is stopped once in each."""
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    folders = []
    for curriculum in (True, False):
        config = tmp_path / f"{curriculum}.yaml"
        folders.append(tmp_path / str(curriculum))
        run = replace(
            texts, curriculum=curriculum, per_device_train_batch_size=2, output_dir=str(folders[-1]), ema_decay=0.9
        )
        config.write_text(run.to_yaml())
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    subprocess.run([*launch, *(f"{folder}.yaml" for folder in folders)], check=True, capture_output=True)
    for folder in folders:
        whole = json.loads((folder / "metrics.json").read_text())
        # The 16 test examples do not fill a batch of both processes.
        lone = evaluate(open_run(folder))
        for name in ("accuracy", "f1_macro", "classes", "confusion"):
            assert lone[f"test_{name}"] == whole[f"test_{name}"], name
        for stop in (3, 8, 15) if folder.name == "True" else (15,):
            parts = Path(f"{folder}-{stop}")
            metrics = json.loads((parts / "metrics.json").read_text())
            assert metrics["train_tokens"] == whole["train_tokens"], parts
            assert metrics["curriculum_levels"] == whole["curriculum_levels"], parts
            assert_equal_weights(folder / "checkpoint-20/model.safetensors", parts / "checkpoint-20/model.safetensors")
    lone = RunConfig.from_yaml(Path(f"{folders[0]}.yaml"))
    with pytest.raises(UserError, match="processes is 1 instead of 2"):
        train(replace(lone, resume=True))


@pytest.mark.slow
def test_a_run_killed_after_its_last_step_is_measured_and_not_trained_on(tiny, straight, monkeypatch):

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("rmaat.training.results.measure", killed)
    parts = replace(tiny, output_dir=f"{tiny.output_dir}-parts")
    with pytest.raises(KeyboardInterrupt):
        train(parts)
    monkeypatch.undo()
    monkeypatch.setattr(SegmentTrainer, "training_step", killed)
    resumed = train(replace(parts, resume=True))
    for name in ("steps", "best_step", "train_tokens", "test_loss", "eval_loss"):
        assert resumed.metrics[name] == straight.metrics[name], name
    assert (resumed.output_dir / "curves.png").exists()
    monkeypatch.undo()
    assert (
        train(replace(parts, resume=True, max_steps=straight.metrics["steps"] + 2)).metrics["steps"]
        == straight.metrics["steps"] + 2
    )


@pytest.mark.slow
def test_a_killed_run_leaves_a_whole_checkpoint(tiny):
    folder = Path(tiny.output_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = folder.parent / "run-config.yaml"
    config.write_text(replace(tiny, max_steps=100_000).to_yaml())
    process = subprocess.Popen(
        [sys.executable, "-m", "rmaat", "train", "--config", str(config)], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not list(folder.glob(f"checkpoint-*/{SEAL}")):
            assert process.poll() is None
            assert time.monotonic() < deadline
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    checkpoint = last_usable_checkpoint(folder)
    assert (checkpoint / "optimizer.pt").exists()
    assert load_file(checkpoint / "model.safetensors")


@pytest.mark.parametrize(("step", "advice"), [(2, ""), (7, "; continue with --resume")])
def test_an_interrupted_command_names_the_flag_that_continues_it(tiny, monkeypatch, capsys, step, advice):
    config = Path(tiny.output_dir).parent / "interrupted.yaml"
    config.write_text(tiny.to_yaml())
    stop_before(monkeypatch, step)
    assert main(["train", "--config", str(config)]) == 130
    error = capsys.readouterr().err
    assert error.endswith(f"\nrmaat: interrupted{advice}\n")
    # The output is no terminal, so it has lines but no bar.
    assert "step/s" not in error
    assert ("validation loss" in error) == (step == 7)


def test_a_terminal_has_a_bar_that_an_interrupt_ends(tiny, monkeypatch, capsys):
    stop_before(monkeypatch, 2)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        train(tiny)
    error = capsys.readouterr().err
    assert "step/s" in error
    assert error.endswith("\n")
