"""The temperature: against a search over a grid, known temperatures, and stored models."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rmaat.training.calibration import TEMPERATURES, fitted_temperature
from rmaat.training.finished_run import open_run
from rmaat.training.inference import predict
from rmaat.training.metrics import cross_entropy
from rmaat.training.run import evaluate, train


def drawn(seed: int, examples: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return calibrated logits: each label is drawn from the probabilities."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(examples, classes))
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(1)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("scale", [0.2, 1.0, 7.0])
def test_the_temperature_of_scaled_logits_is_the_scale(classes, scale):
    logits, labels = drawn(0, 40_000, classes)
    temperature = fitted_temperature((scale * logits).astype(np.float32), labels)
    assert temperature == pytest.approx(scale, rel=0.03)
    # The minimum over a grid; the targets differ little from the labels with so many examples.
    grid = scale * np.linspace(0.9, 1.1, 81)
    losses = [cross_entropy(scale * logits / one, labels) for one in grid]
    assert temperature == pytest.approx(grid[np.argmin(losses)], rel=0.005)


def test_few_right_answers_do_not_make_a_model_certain():
    logits = np.array([[3.0, 0], [0, 3], [3, 0], [0, 3]])
    temperature = fitted_temperature(logits, np.array([0, 1, 0, 1]))
    # 4 right answers: the rule of succession gives the next one the probability 5 / 6.
    assert 1 / (1 + np.exp(-3 / temperature)) == pytest.approx(5 / 6, rel=1e-4)


def test_the_temperature_has_bounds():
    logits, labels = np.array([[1.0, 0], [0, 1]]), np.array([1, 0])
    assert fitted_temperature(logits, labels) == pytest.approx(TEMPERATURES[1], rel=1e-3)


@pytest.mark.parametrize("hidden", [None, 8])
def test_the_stored_model_is_calibrated_and_its_answers_and_checkpoints_stay(tiny, hidden):
    run = replace(tiny, classifier_hidden_size=hidden, learning_rate=3e-2)
    plain = train(run)
    calibrated = train(replace(run, calibration=True, output_dir=f"{tiny.output_dir}-calibrated"))
    assert plain.metrics["calibration"] is None
    record = calibrated.metrics["calibration"]
    assert abs(np.log(record["temperature"])) > 0.01
    assert record["uncalibrated_eval_loss"] == plain.metrics["eval_loss"] > calibrated.metrics["eval_loss"]
    error = "eval_calibration_error"
    assert record[f"uncalibrated_{error}"] == plain.metrics[error] != calibrated.metrics[error]
    for name in ("test_accuracy", "eval_accuracy", "test_confusion", "best_step"):
        assert calibrated.metrics[name] == plain.metrics[name], name
    one, other = (load_file(result.output_dir / "model.safetensors") for result in (plain, calibrated))
    for name, weights in one.items():
        factor = 1 / record["temperature"] if name.startswith("classifier.") else 1
        torch.testing.assert_close(other[name], factor * weights)
    for name in ("model.safetensors", "optimizer.pt"):
        first, second = (result.output_dir / "checkpoint-12" / name for result in (plain, calibrated))
        assert first.read_bytes() == second.read_bytes()
    # Whatever reads the model has the calibrated probabilities.
    finished = open_run(calibrated.output_dir)
    assert evaluate(finished)["test_loss"] == calibrated.metrics["test_loss"]
    logits = [
        torch.tensor(predict(open_run(x.output_dir), ["[MAX 3 4 ]"]).probabilities).log() for x in (plain, calibrated)
    ]
    scaled = (logits[0] / record["temperature"]).softmax(0)
    torch.testing.assert_close(logits[1].exp(), scaled, rtol=1e-4, atol=1e-6)


def test_a_finished_run_may_be_calibrated_by_resuming_it(tiny):
    plain = train(tiny)
    resumed = train(replace(tiny, resume=True, calibration=True))
    assert resumed.metrics["calibration"]["uncalibrated_eval_loss"] == plain.metrics["eval_loss"]
    again = train(replace(tiny, resume=True))
    assert again.metrics["calibration"] is None
    assert again.metrics["eval_loss"] == plain.metrics["eval_loss"]
    assert json.loads((Path(tiny.output_dir) / "metrics.json").read_text())["calibration"] is None
