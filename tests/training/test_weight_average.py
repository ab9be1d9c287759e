"""The moving average of the weights: its formula, what reads it, and runs that resume with it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rmaat import RmaatForSequenceClassification
from rmaat.errors import UserError
from rmaat.tasks import load
from rmaat.training.config import RunConfig
from rmaat.training.run import train
from rmaat.training.trainer import SegmentTrainer
from rmaat.training.weight_average import RAW_WEIGHTS

Weights = dict[str, torch.Tensor]


@pytest.fixture
def averaged(tiny: RunConfig) -> RunConfig:
    """A run that reaches its decay at step 3."""
    return replace(tiny, ema_decay=0.3, pooled_norm=True, save_total_limit=3)


def record_weights(monkeypatch: pytest.MonkeyPatch) -> list[Weights]:
    """Return a list that receives the weights at the beginning of each training step."""
    honest, seen = SegmentTrainer.training_step, []

    def recorded(self, model, *args, **kwargs):
        seen.append({name: p.detach().clone() for name, p in model.named_parameters()})
        return honest(self, model, *args, **kwargs)

    monkeypatch.setattr(SegmentTrainer, "training_step", recorded)
    return seen


def test_a_checkpoint_holds_the_average_of_the_weights_and_the_weights(averaged, monkeypatch):
    with monkeypatch.context() as patch:
        seen = record_weights(patch)
        train(averaged)
    average = seen[0]
    for step in range(1, 9):
        decay = min(0.3, (1 + step) / (10 + step))
        average = {name: decay * old + (1 - decay) * seen[step][name] for name, old in average.items()}
        if step % 4 == 0:
            checkpoint = Path(averaged.output_dir) / f"checkpoint-{step}"
            stored, raw = load_file(checkpoint / "model.safetensors"), load_file(checkpoint / RAW_WEIGHTS)
            for name, value in average.items():
                torch.testing.assert_close(stored[name], value, rtol=1e-4, atol=1e-6)
                assert torch.equal(raw[name], seen[step][name]), name
                assert not torch.equal(raw[name], stored[name]), name


def test_averaging_changes_no_weight_of_the_training(averaged, monkeypatch):
    """Nor does the measurement of pooled_norm and the evaluation with other weights."""
    with monkeypatch.context() as patch:
        seen = record_weights(patch)
        train(averaged)
        count = len(seen)
        train(replace(averaged, ema_decay=None, output_dir=f"{averaged.output_dir}-plain"))
    assert count == 12
    for one, other in zip(seen[:count], seen[count:], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_evaluations_and_the_final_model_use_the_average(averaged):
    metrics = train(averaged).metrics
    folder = Path(averaged.output_dir)
    best = load_file(folder / f"checkpoint-{metrics['best_step']}" / "model.safetensors")
    final = load_file(folder / "model.safetensors")
    assert all(torch.equal(best[name], final[name]) for name in best)
    state = json.loads((folder / "checkpoint-12" / "trainer_state.json").read_text())
    reports = {report["step"]: report for report in state["log_history"] if "eval_loss" in report}
    assert reports[metrics["best_step"]]["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-6)
    # Counted one example at a time, outside the trainer.
    model = RmaatForSequenceClassification.from_pretrained(folder).eval()
    data = load("listops_short", averaged.data_dir, max_seq_len=192)["validation"].with_format("torch")
    losses = [model(x["input_ids"].long()[None], labels=x["labels"][None]).loss.item() for x in data]
    assert metrics["eval_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 7])
def test_a_resumed_run_has_the_weights_and_the_average_of_an_uninterrupted_one(averaged, monkeypatch, step):
    whole = train(averaged)
    honest = SegmentTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return honest(self, *args, **kwargs)

    parts = replace(averaged, output_dir=f"{averaged.output_dir}-parts")
    with monkeypatch.context() as patch:
        patch.setattr(SegmentTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(parts)
    resumed = train(replace(parts, resume=True))
    for name in ("model.safetensors", "checkpoint-12/model.safetensors", f"checkpoint-12/{RAW_WEIGHTS}"):
        weights, others = (load_file(result.output_dir / name) for result in (whole, resumed))
        for key, value in weights.items():
            assert torch.equal(value, others[key]), (name, key)
    assert resumed.metrics["eval_loss"] == whole.metrics["eval_loss"]


def test_a_damaged_set_of_weights_is_noticed(averaged, caplog):
    train(averaged)
    (Path(averaged.output_dir) / "checkpoint-12" / RAW_WEIGHTS).unlink()
    train(replace(averaged, resume=True))
    assert f"{RAW_WEIGHTS} is missing; the run continues from checkpoint-8" in caplog.text


def test_the_second_set_of_weights_counts_in_the_space_that_a_run_needs(averaged, monkeypatch):
    needed = []
    for decay in (None, 0.3):
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0})())
        with pytest.raises(UserError, match="MiB free") as refusal:
            train(replace(averaged, ema_decay=decay, save_total_limit=1000))
        needed.append(int(str(refusal.value).split("needs about ")[1].split()[0]))
    assert needed[1] == pytest.approx(needed[0] * 4 / 3, rel=0.02)
