"""The temperature: against searches, known temperatures, and stored models."""

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.optimize import minimize

from rmaat.training.calibration import (
    CUT_SHARES,
    KNOTS,
    ROUGHNESS,
    TEMPERATURES,
    fitted_knots,
    fitted_temperature,
)
from rmaat.training.finished_run import open_run
from rmaat.training.inference import predict
from rmaat.training.metrics import cross_entropy
from rmaat.training.problems.single_label import ClassTemperatureLoss
from rmaat.training.run import evaluate, train


def drawn(seed: int, examples: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return calibrated logits: each label is drawn from the probabilities."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(examples, classes))
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(1)


def one_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that suits all examples alike."""
    return fitted_temperature(ClassTemperatureLoss(logits, labels), len(labels), len(labels))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("scale", [0.2, 1.0, 7.0])
def test_the_temperature_of_scaled_logits_is_the_scale(classes, scale):
    logits, labels = drawn(0, 40_000, classes)
    temperature = one_temperature((scale * logits).astype(np.float32), labels)
    assert temperature == pytest.approx(scale, rel=0.03)
    # The minimum over a grid; the prior weighs little with so many examples.
    grid = scale * np.linspace(0.9, 1.1, 81)
    losses = [cross_entropy(scale * logits / one, labels) for one in grid]
    assert temperature == pytest.approx(grid[np.argmin(losses)], rel=0.005)


def test_few_right_answers_do_not_make_a_model_certain():
    logits = np.array([[3.0, 0], [0, 3], [3, 0], [0, 3]])
    temperature = one_temperature(logits, np.array([0, 1, 0, 1]))
    # 4 right answers: the rule of succession gives the next one the probability 5 / 6.
    assert 1 / (1 + np.exp(-3 / temperature)) == pytest.approx(5 / 6, rel=1e-4)


@pytest.mark.parametrize("gaps", [[5.0] * 9 + [50], [3, 4, 5, 6, 7, 8, 9, 10, 20, 60]])
def test_a_single_large_logit_does_not_decide_the_temperature(gaps):
    gaps = np.array(gaps, float)
    temperature = one_temperature(np.stack([gaps, 0 * gaps], 1), np.zeros(10, int))
    right = 1 / (1 + np.exp(-gaps / temperature))
    assert right.mean() == pytest.approx(1 - 1 / 12, abs=0.01)
    assert right.min() > 0.7


def test_right_answers_to_whole_and_cut_texts_stay_sure():
    """The logits grow with the length and differ widely, as those of a trained model do."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(50, 400, 10) * np.array([1, 0.5, 0.1, 0.02])[:, None]
    gaps = np.sqrt(tokens) * rng.uniform(0.2, 2, tokens.shape)
    gaps[0, 0] = 200
    logits = np.stack([gaps.ravel(), 0 * gaps.ravel()], 1)
    knots = fitted_knots(ClassTemperatureLoss(logits, np.zeros(40, int)), tokens.ravel(), 10)
    places, temperatures = np.log(np.array(knots)).T
    right = 1 / (1 + np.exp(-gaps / np.exp(np.interp(np.log(tokens), places, temperatures))))
    np.testing.assert_allclose(right.mean(1), 1 - 1 / 12, atol=0.05)
    assert right.min() > 0.6


def test_the_temperature_has_bounds():
    logits = np.array([[2000.0, 0], [0, 2000]])
    assert one_temperature(logits, np.array([1, 0])) == pytest.approx(TEMPERATURES[1], rel=1e-3)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_temperatures_of_logits_scaled_by_length_are_the_scales(classes):
    logits, labels = drawn(1, 40_000, classes)
    tokens = np.exp(np.random.default_rng(2).uniform(0, np.log(1000), len(labels))).round().astype(int)
    scale = 3 * tokens**-0.4
    knots = fitted_knots(ClassTemperatureLoss(logits * scale[:, None], labels), tokens, len(labels))
    assert len(knots) == KNOTS
    assert (knots[0][0], knots[-1][0]) == (1, pytest.approx(1000))
    for number, temperature in knots:
        assert temperature == pytest.approx(3 * number**-0.4, rel=0.1)


def test_the_temperatures_minimise_the_loss_and_the_bends_of_their_curve():
    """The reference interpolates by a loop over examples, and searches without a derivative."""
    logits, labels = drawn(3, 60, 3)
    tokens = np.random.default_rng(4).integers(1, 90, 60)
    knots = fitted_knots(ClassTemperatureLoss(logits, labels), tokens, 20, 3)
    places, fitted = np.log(np.array(knots)).T
    first, last = np.log(tokens.min()), np.log(tokens.max())
    np.testing.assert_allclose(places, [first, (first + last) / 2, last])

    def objective(log_temperatures):
        total, doubts, weights = 0.0, np.zeros(3), np.zeros(3)
        for z, y, n in zip(logits, labels, tokens, strict=True):
            left = int(np.log(n) >= places[1])
            share = (np.log(n) - places[left]) / (places[left + 1] - places[left])
            log_temperature = (1 - share) * log_temperatures[left] + share * log_temperatures[left + 1]
            probabilities = np.exp(z / np.exp(log_temperature))
            probabilities /= probabilities.sum()
            total -= np.log(probabilities[y])
            for knot, weight in ((left, 1 - share), (left + 1, share)):
                doubts[knot] += weight * (1 - probabilities.max())
                weights[knot] += weight
        # One example in 20 that is right, and one that is wrong, at each knot.
        total -= weights @ (np.log(doubts / weights) + np.log(1 - doubts / weights)) / 20
        bend = log_temperatures[0] - 2 * log_temperatures[1] + log_temperatures[2]
        return total / 60 + ROUGHNESS / 20 * bend**2

    searched = minimize(objective, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12})
    np.testing.assert_allclose(fitted, searched.x, atol=1e-3)


def test_equal_lengths_have_one_temperature():
    logits, labels = drawn(0, 50, 2)
    loss = ClassTemperatureLoss(logits, labels)
    assert fitted_knots(loss, np.full(50, 7), 50) == [[7, fitted_temperature(loss, 50, 50)]]


@pytest.mark.parametrize("hidden", [None, 8])
def test_the_stored_model_is_calibrated_and_its_answers_and_checkpoints_stay(tiny, hidden):
    run = replace(tiny, classifier_hidden_size=hidden, learning_rate=3e-2)
    plain = train(run)
    calibrated = train(replace(run, calibration=True, output_dir=f"{tiny.output_dir}-calibrated"))
    assert plain.metrics["calibration"] is None
    record = calibrated.metrics["calibration"]
    ((_, temperature),) = record["temperatures"]
    assert abs(np.log(temperature)) > 0.01
    assert record["uncalibrated_eval_loss"] == plain.metrics["eval_loss"] > calibrated.metrics["eval_loss"]
    error = "eval_calibration_error"
    assert record[f"uncalibrated_{error}"] == plain.metrics[error] != calibrated.metrics[error]
    for name in ("test_accuracy", "eval_accuracy", "test_confusion", "best_step"):
        assert calibrated.metrics[name] == plain.metrics[name], name
    one, other = (load_file(result.output_dir / "model.safetensors") for result in (plain, calibrated))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    config = json.loads((calibrated.output_dir / "config.json").read_text())
    assert config["temperatures"] == record["temperatures"]
    for name in ("model.safetensors", "optimizer.pt"):
        first, second = (result.output_dir / "checkpoint-12" / name for result in (plain, calibrated))
        assert first.read_bytes() == second.read_bytes()
    # Whatever reads the model has the calibrated probabilities.
    finished = open_run(calibrated.output_dir)
    assert evaluate(finished)["test_loss"] == calibrated.metrics["test_loss"]
    logits = [
        torch.tensor(predict(open_run(x.output_dir), ["[MAX 3 4 ]"]).probabilities).log() for x in (plain, calibrated)
    ]
    scaled = (logits[0] / temperature).softmax(0)
    torch.testing.assert_close(logits[1].exp(), scaled, rtol=1e-4, atol=1e-6)


def test_a_finished_run_may_be_calibrated_by_resuming_it(tiny):
    plain = train(tiny)
    resumed = train(replace(tiny, resume=True, calibration=True))
    assert resumed.metrics["calibration"]["uncalibrated_eval_loss"] == plain.metrics["eval_loss"]
    again = train(replace(tiny, resume=True))
    assert again.metrics["calibration"] is None
    assert again.metrics["eval_loss"] == plain.metrics["eval_loss"]
    assert json.loads((Path(tiny.output_dir) / "metrics.json").read_text())["calibration"] is None


def test_texts_are_calibrated_whole_and_cut(own_text_run, tmp_path):
    """The reference reads each cut text by itself, and divides logits by a temperature of its own."""
    folder = tmp_path / "run"
    copytree(own_text_run, folder)
    run = replace(open_run(own_text_run).config, output_dir=str(folder), resume=True, calibration=True)
    metrics = train(replace(run, max_steps=60)).metrics
    knots = metrics["calibration"]["temperatures"]
    assert len(knots) == KNOTS
    assert len({temperature for _, temperature in knots}) == KNOTS
    assert (folder / "reliability_by_length.png").stat().st_size > 10_000
    plain, calibrated = open_run(folder), open_run(folder)
    plain.model.config.temperatures = None
    rows = [json.loads(line) for line in (own_text_run.parent / "test.jsonl").read_text().splitlines()]
    places, temperatures = np.log(np.array(knots)).T
    assert [row["share"] for row in metrics["calibration"]["by_length"]] == list(CUT_SHARES)
    for reported in metrics["calibration"]["by_length"]:
        confidences, right, lengths = [], [], []
        for row in rows:
            text = row["text"][:64]
            text = text[: max(1, -int(-len(text) * reported["share"] // 1))]
            logits = np.log(predict(plain, [text]).probabilities) / np.exp(
                np.interp(np.log(len(text)), places, temperatures)
            )
            probabilities = np.exp(logits) / np.exp(logits).sum()
            np.testing.assert_allclose(predict(calibrated, [text]).probabilities, probabilities, rtol=1e-4)
            confidences.append(probabilities.max())
            right.append(calibrated.source.info.label_names[probabilities.argmax()] == row["label"])
            lengths.append(len(text))
        bins = np.ceil(np.array(confidences) * 15).astype(int)
        error = sum(abs(np.sum(np.where(bins == k, np.subtract(right, confidences), 0))) for k in range(16)) / len(rows)
        assert reported["calibration_error"] == pytest.approx(error, abs=1e-4)
        assert reported["accuracy"] == pytest.approx(np.mean(right))
        assert reported["mean_tokens"] == pytest.approx(np.mean(lengths))
