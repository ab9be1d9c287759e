"""The loss of the labels in training: against torch, scikit-learn and loops over examples."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from rmaat.errors import UserError
from rmaat.models.classification import RmaatClassifierOutput
from rmaat.training.data import RunData
from rmaat.training.label_loss import LabelLoss
from rmaat.training.problems import PROBLEMS
from rmaat.training.run import build_model, build_trainer

balanced_weights = PROBLEMS["single_label_classification"].balanced_weights


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.random.default_rng(0).choice([0, 1, 3], 50, p=[0.7, 0.2, 0.1])
    weights = balanced_weights(labels, 5)
    present = np.unique(labels)
    np.testing.assert_allclose(weights[present], compute_class_weight("balanced", classes=present, y=labels), rtol=1e-6)
    assert weights[2] == weights[4] == 0
    assert weights[labels].mean() == pytest.approx(1)
    shares = [weights[label] * (labels == label).sum() for label in present]
    np.testing.assert_allclose(shares, shares[0], rtol=1e-6)


def test_each_example_has_the_weight_of_its_class():
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(6, 3, generator=generator), torch.tensor([0, 0, 1, 2, 0, 1])
    weights = np.array([0.5, 1.0, 3.0], np.float32)
    loss = LabelLoss(smoothing=0.2, class_weights=weights)(RmaatClassifierOutput(logits=logits), {"labels": labels})
    each = [cross_entropy(x[None], y[None], label_smoothing=0.2) for x, y in zip(logits, labels, strict=True)]
    expected = sum(one * float(weights[label]) for one, label in zip(each, labels, strict=True)) / 6
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("readout", ["mean", "running_mean"])
def test_the_loss_after_every_segment_is_that_of_texts_cut_there(tiny, readout):
    """The reference classifies each beginning of each text by itself, without replay."""
    run = replace(tiny, readout=readout, retention_schedule="constant", hidden_dropout_prob=0.0)
    run = replace(run, segment_loss_weight=0.3, class_weights="balanced")
    source = RunData.of(run)
    torch.manual_seed(0)
    model = build_model(source)
    torch.nn.init.normal_(model.classifier.weight)
    data = source.load()
    trainer = build_trainer(source, model, data)
    weights = torch.from_numpy(balanced_weights(np.array(data["train"]["labels"]), 10))
    batch = next(iter(trainer.get_train_dataloader()))
    batch = {name: x[:6] for name, x in batch.items()}
    # One text ends within its first segment, and one within its second.
    for row, length in ((2, 40), (3, 100)):
        batch["attention_mask"][row, length:] = False
    loss = trainer.compute_loss(model.train(), dict(batch))
    trained = [p for p in model.parameters() if p.numel()]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)

    model.config.memory_replay_backprop = False
    size, total = run.tokens_per_segment, torch.zeros(())
    lengths = batch["attention_mask"].sum(1).tolist()
    assert {-(-length // size) for length in lengths} == {1, 2, 3}
    for ids, label, length in zip(batch["input_ids"], batch["labels"], lengths, strict=True):
        ends = [*range(size, length, size), length]
        losses = [cross_entropy(model(ids[None, :end]).logits, label[None]) for end in ends]
        total = total + weights[label] * (losses[-1] + 0.3 * sum(losses) / len(losses)) / len(lengths)
    torch.testing.assert_close(loss, total)
    for one, other in zip(gradients, torch.autograd.grad(total, trained, allow_unused=True), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    # Evaluations have the plain loss.
    evaluated, outputs = trainer.compute_loss(model.eval(), dict(batch), return_outputs=True)
    torch.testing.assert_close(evaluated, cross_entropy(outputs.logits, batch["labels"]))
    assert outputs.segment_logits is None


@pytest.mark.parametrize("name", ["pooled_norm", "two_towers"])
def test_a_head_that_needs_whole_sequences_excludes_a_loss_after_every_segment(tiny, name):
    with pytest.raises(UserError, match=f"segment_loss_weight excludes {name}"):
        replace(tiny, segment_loss_weight=0.5, **{name: True}).check()
