"""Calibration of a trained classifier by a temperature (arXiv 1706.04599) that depends on the length.

A text that is much shorter than those of the training has far too high probabilities if it is divided
by the temperature of whole texts. So the temperature is fitted on the validation part whole and cut.

Axes: E examples, C classes, K knots.
"""

from dataclasses import asdict, dataclass
from itertools import pairwise
from math import log
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from rmaat.models.temperature import temperature_at
from rmaat.training.data import RunData, draw_examples
from rmaat.training.problems import MultiLabel
from rmaat.training.problems.base import Labels, Outputs, TemperatureLoss
from rmaat.training.trainer import SegmentTrainer

TEMPERATURES = (0.01, 100.0)
"""Bounds of a temperature."""

GRID = 64
"""Temperatures at which the search for the best one begins, evenly spaced in the logarithm."""

KNOTS = 6
"""Knots of the temperature over the number of tokens, evenly spaced in its logarithm."""

ROUGHNESS = 1.0
"""Weight of the squared second differences of log T over the knots, in nats of one example."""

CUT_SHARES = (1.0, 1 / 4, 1 / 16, 1 / 64)
"""Shares of a text between which it is cut to fit the temperature, and at which it is measured."""

MOST_CUT_EXAMPLES = 2000
"""Most test examples on which the probabilities of cut texts are measured."""


def objective(
    loss: TemperatureLoss, shares_EK: NDArray[np.float64], independent: int, log_T_K: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Return the loss with its prior, a mean over the examples, and the derivative by log T (K,).

    Without a prior T would be 0 if all answers were right, although E right answers do not exclude
    errors. The prior is Beta(2, 2) for the mean probability of the answers at each knot, weighted as
    one example for each answer. After E right answers it makes the mean 1 - 1 / (E + 2), Laplace's rule
    of succession. A prior for each example by itself, such as the softened targets of Platt (1999),
    would let the largest logits decide T, and leave others near a guess.

    Args:
        loss: the loss of the examples.
        shares_EK: (E, K), the weight of each knot in the log T of each example; rows add up to 1.
        independent: the number of different examples; the others are parts of them.
        log_T_K: (K,).
    """
    factor_E = np.exp(-shares_EK @ log_T_K)
    loss_E, slope_E = loss(factor_E)
    doubt_ED, doubt_slope_ED = loss.doubt(factor_E)
    # A knot between whose neighbours no example lies has no prior.
    weight_K = shares_EK.sum(0)
    smallest = np.finfo(np.float64).tiny
    doubt_KD = np.maximum(shares_EK.T @ doubt_ED, smallest) / np.maximum(weight_K, smallest)[:, None]
    doubt_KD = np.clip(doubt_KD, smallest, 1 - 1e-12)
    prior_K = -(np.log(doubt_KD) + np.log1p(-doubt_KD)).mean(1)
    rise_ED = shares_EK @ (1 / (1 - doubt_KD) - 1 / doubt_KD)
    slope_E = slope_E + (rise_ED * doubt_slope_ED).mean(1) / independent
    value = float(loss_E.sum() + weight_K @ prior_K / independent) / len(loss_E)
    return value, -shares_EK.T @ (slope_E * factor_E) / len(loss_E)


def fitted_temperature(loss: TemperatureLoss, examples: int, independent: int) -> float:
    """Return the one temperature within `TEMPERATURES` that minimises the `objective`.

    Args:
        loss: the loss of the examples.
        examples: E, their number.
        independent: the number of different examples.
    """

    def value(log_temperature: float) -> float:
        return objective(loss, np.ones((examples, 1)), independent, np.array([log_temperature]))[0]

    # The prior is not convex, so the search begins at the best of a grid.
    grid = np.linspace(log(TEMPERATURES[0]), log(TEMPERATURES[1]), GRID)
    best = int(np.argmin([value(point) for point in grid]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)])
    result: Any = minimize_scalar(value, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(result.x))


def fitted_knots(
    loss: TemperatureLoss, tokens_E: NDArray[np.int64], independent: int, knots: int = KNOTS
) -> list[list[float]]:
    """Return the temperatures [tokens, T] at some numbers of tokens, for `RmaatConfig.temperatures`.

    They minimise the `objective` and the `ROUGHNESS` of the curve, see `rmaat.models.temperature`. The
    latter makes the curve straight where there are few examples.

    Args:
        loss: the loss of the examples.
        tokens_E: (E,), the number of tokens that the model has read.
        independent: the number of different examples.
        knots: K. It is 1 if all examples have the same number of tokens.
    """
    log_tokens_E = np.log(tokens_E)
    places_K = np.linspace(log_tokens_E.min(), log_tokens_E.max(), knots)
    start = np.log(fitted_temperature(loss, len(tokens_E), independent))
    if knots == 1 or places_K[0] == places_K[-1]:
        return [[float(tokens_E.max()), float(np.exp(start))]]
    # Row k of the identity, interpolated, is the share of knot k in each example's log T.
    shares_EK = np.stack([np.interp(log_tokens_E, places_K, row_K) for row_K in np.eye(knots)], 1)
    bends = np.diff(np.eye(knots), n=2, axis=0)
    penalty = ROUGHNESS / independent

    def smoothed(log_T_K: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, gradient_K = objective(loss, shares_EK, independent, log_T_K)
        bend = bends @ log_T_K
        return float(value + penalty * bend @ bend), gradient_K + 2 * penalty * bends.T @ bend

    bounds = [tuple(np.log(TEMPERATURES))] * knots
    result: Any = minimize(smoothed, np.full(knots, start), jac=True, bounds=bounds, method="L-BFGS-B")
    return np.exp(np.stack([places_K, result.x], 1)).tolist()


@dataclass(frozen=True)
class Answers:
    """The model's logits for some examples, their labels, and the tokens that it has read of each.

    Attributes:
        logits: (E, C).
        labels: (E,).
        tokens: (E,).
        loss: the mean loss.
    """

    logits: Outputs
    labels: Labels
    tokens: NDArray[np.int64]
    loss: float


def answers_to_beginnings(
    source: RunData, trainer: SegmentTrainer, part: Dataset, shares_E: NDArray[np.float64]
) -> Answers:
    """Return the answers to the beginnings of the examples of a part, see `RunData.beginnings`."""
    examples, tokens_E = source.beginnings(part, shares_E)
    output = trainer.predict(examples, metric_key_prefix="eval")
    return Answers(output.predictions, output.label_ids, tokens_E, output.metrics["eval_loss"])


def calibrate(source: RunData, trainer: SegmentTrainer, validation: Dataset) -> dict[str, Any]:
    """Fit the temperatures of the trained model on the validation part, and store them in its config.

    If examples have several labels, the threshold of an answer is chosen too, after the temperatures.

    The best checkpoint was chosen on examples of the same part. Each text is read whole and, for tasks
    of texts, cut to a random share between any two neighbours in `CUT_SHARES`.

    Returns:
        The `temperatures`, see `RmaatConfig`, and on the validation part the loss and the calibration
        error before, as `uncalibrated_eval_loss` and `uncalibrated_eval_calibration_error`.
        `guess_loss` is the loss of the probabilities of a guess. `label_threshold` is null if an example
        has one label.
    """
    count, draw = len(validation), np.random.default_rng(source.run.data_seed)
    shares = [np.ones(count)]
    if source.info.kind == "text":
        shares += [np.exp(draw.uniform(np.log(low), np.log(high), count)) for high, low in pairwise(CUT_SHARES)]
    read = [answers_to_beginnings(source, trainer, validation, shares_E) for shares_E in shares]
    logits_EC, labels_E, tokens_E = (
        np.concatenate([getattr(answers, name) for answers in read]) for name in ("logits", "labels", "tokens")
    )
    loss = source.problem.temperature_loss(logits_EC, labels_E)
    temperatures = fitted_knots(loss, tokens_E, count, KNOTS if len(read) > 1 else 1)
    trainer.model.config.temperatures = temperatures
    whole, threshold = read[0], None
    if isinstance(source.problem, MultiLabel):
        divisor_E1 = temperature_at(torch.from_numpy(whole.tokens), temperatures).numpy()[:, None]
        threshold = source.problem.with_threshold(whole.logits / divisor_E1, whole.labels).threshold
        trainer.model.config.label_threshold = threshold
    return {
        "temperatures": temperatures,
        "label_threshold": threshold,
        "uncalibrated_eval_loss": whole.loss,
        "uncalibrated_eval_calibration_error": source.problem.reliability(whole.logits, whole.labels).calibration_error,
        "guess_loss": -log(source.problem.uninformed(trainer.model.config)),
    }


def calibration_by_length(source: RunData, trainer: SegmentTrainer, test: Dataset) -> list[dict[str, Any]]:
    """Return the calibration on the beginnings of test texts, one dict for each of `CUT_SHARES`.

    Each has the `share`, the `mean_tokens` read, and as in `Problem.summary` the main metric, the
    `calibration_error` and the `reliability`.
    """
    part, problem, rows = draw_examples(test, MOST_CUT_EXAMPLES, source.run.data_seed), source.problem, []
    for share in CUT_SHARES:
        answers = answers_to_beginnings(source, trainer, part, np.full(len(part), share))
        bins = problem.reliability(answers.logits, answers.labels)
        rows.append(
            {
                "share": share,
                "mean_tokens": float(answers.tokens.mean()),
                problem.main_metric: problem.metrics(answers.logits, answers.labels)[problem.main_metric],
                "calibration_error": bins.calibration_error,
                "reliability": {name: values.tolist() for name, values in asdict(bins).items()},
            }
        )
    return rows
