"""The trainer's own loss and optimiser."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from rmaat.training.config import RunConfig
from rmaat.training.data import RunData
from rmaat.training.run import build_model, build_trainer
from rmaat.training.trainer import SegmentTrainer


@pytest.fixture
def pairs(tiny: RunConfig, tmp_path: Path) -> RunConfig:
    """A run on pairs of texts that two towers read."""
    files = {f"{part}_file": str(tmp_path / f"{part}.jsonl") for part in ("train", "validation", "test")}
    for name, path in files.items():
        rows = [{"a": name + "x" * (i + 70), "b": "y" * (90 - i), "label": "pqr"[i % 3]} for i in range(60)]
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"text_column": "a", "other_text_column": "b"}
    return replace(tiny, dataset="files", data_dir=str(tmp_path), two_towers=True, **files, **columns)


def trainer_of(run: RunConfig) -> SegmentTrainer:
    """The trainer of a run, with a model whose logits differ."""
    source = RunData.of(run)
    torch.manual_seed(0)
    model = build_model(source)
    torch.nn.init.normal_(model.classifier.weight)
    return build_trainer(source, model, source.load())


@pytest.mark.parametrize("form", ["replay", "full", "two_towers"])
def test_smoothed_labels_are_those_of_torch_in_training_and_plain_in_evaluation(tiny, request, form):
    run = request.getfixturevalue("pairs") if form == "two_towers" else tiny
    run = replace(run, memory_replay_backprop=form != "full", label_smoothing_factor=0.3, hidden_dropout_prob=0.0)
    trainer = trainer_of(run)
    model = trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    labels = batch["labels"].clone()
    loss = trainer.compute_loss(model, dict(batch))
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    logits = model(**batch).logits
    expected = cross_entropy(logits, labels, label_smoothing=0.3)
    assert abs(expected - cross_entropy(logits, labels)) > 0.01
    torch.testing.assert_close(loss, expected)
    for gradient, wanted in zip(
        gradients, torch.autograd.grad(expected, list(model.parameters()), allow_unused=True), strict=True
    ):
        torch.testing.assert_close(gradient, wanted)
    loss, outputs = trainer.compute_loss(model.eval(), dict(batch), return_outputs=True)
    torch.testing.assert_close(loss, cross_entropy(outputs.logits, labels))


def test_the_optimiser_has_the_decays_of_the_settings(tiny):
    optimizer = trainer_of(replace(tiny, adam_beta1=0.8, adam_beta2=0.95)).create_optimizer()
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.95)}
