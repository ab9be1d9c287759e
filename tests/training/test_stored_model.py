"""A run that begins with the weights of another."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rmaat.errors import UserError
from rmaat.models import RmaatConfig, RmaatForSequenceClassification
from rmaat.training.data import RunData
from rmaat.training.run import train
from rmaat.training.stored_model import load_initial_weights


def test_a_run_begins_with_the_weights_of_another(tiny, finished):
    began = train(
        replace(tiny, init_from=str(finished), seed=5, max_steps=1, eval_steps=1, warmup_steps=0, learning_rate=1e-9)
    )
    assert began.metrics["init_from"] == str(finished)
    before, after = (load_file(folder / "model.safetensors") for folder in (finished, began.output_dir))
    for name, tensor in before.items():
        assert (after[name] - tensor).abs().max() < 1e-7, name


@pytest.mark.parametrize("names", [["no", "yes"], [str(9 - digit) for digit in range(10)]])
def test_with_other_labels_only_the_last_layer_begins_anew(tiny, finished, names):
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    settings = {**RunData.of(tiny).model_settings(), **labels}
    model = RmaatForSequenceClassification(RmaatConfig(**settings))
    last = model.classifier.weight.clone()
    load_initial_weights(model, finished)
    assert torch.equal(model.classifier.weight, last)
    theirs = load_file(finished / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert name.startswith("classifier.") or torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize(
    ("settings", "spoil", "said"),
    [
        ({}, lambda run: (run / "config.json").write_text("{"), "is not JSON"),
        ({}, lambda run: (run / "model.safetensors").unlink(), "it has no model.safetensors; finish that run"),
        ({}, lambda run: (run / "model.safetensors").write_bytes(b"xx"), "damaged or not a safetensors"),
        (
            {"num_memory_tokens": 2, "hidden_act": "relu"},
            lambda run: None,
            r"basis is \(2, 8, 65\) there and \(2, 8, 66\) here; they differ in num_memory_tokens \(1 there, 2 here\), hidden_act",
        ),
        (
            {"classifier_hidden_size": 4},
            lambda run: None,
            "classifier.weight is .* classifier_hidden_size .None there, 4",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_made(tiny, finished, tmp_path, settings, spoil, said):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((finished / name).read_bytes())
    spoil(copy)
    with pytest.raises(UserError, match=said):
        train(replace(tiny, init_from=str(copy), **settings))
    assert not Path(tiny.output_dir).exists()


def test_resuming_with_another_beginning_is_refused(tiny, finished):
    train(replace(tiny, max_steps=1, eval_steps=1))
    with pytest.raises(UserError, match=r"init_from is .* instead of None; the run in"):
        train(replace(tiny, max_steps=1, eval_steps=1, resume=True, init_from=str(finished)))
