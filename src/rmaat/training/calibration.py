"""Calibration of a trained classifier by a temperature (arXiv 1706.04599) that depends on the length.

A text that is much shorter than those of the training has far too high probabilities if it is divided
by the temperature of whole texts. So the temperature is fitted on the validation part whole and cut.

Axes: E examples, C classes, K knots.
"""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from rmaat.training.data import RunData, draw_examples
from rmaat.training.problems.base import Labels, Outputs, TemperatureLoss
from rmaat.training.trainer import SegmentTrainer

TEMPERATURES = (0.01, 100.0)
"""Bounds of a temperature."""

KNOTS = 6
"""Knots of the temperature over the number of tokens, evenly spaced in its logarithm."""

ROUGHNESS = 1.0
"""Weight of the squared second differences of log T over the knots, in nats of one example."""

CUT_SHARES = (1.0, 1 / 4, 1 / 16, 1 / 64)
"""Shares of a text between which it is cut to fit the temperature, and at which it is measured."""

MOST_CUT_EXAMPLES = 2000
"""Most test examples on which the probabilities of cut texts are measured."""


def fitted_temperature(loss: TemperatureLoss) -> float:
    """Return the one temperature within `TEMPERATURES` that minimises the mean loss."""

    # The loss is convex in 1 / T, so it has one minimum in log T.
    def mean_loss(log_temperature: float) -> float:
        return float(loss(np.exp(-log_temperature)[None])[0].mean())

    result: Any = minimize_scalar(mean_loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(result.x))


def fitted_knots(
    loss: TemperatureLoss, tokens_E: NDArray[np.int64], independent: int, knots: int = KNOTS
) -> list[list[float]]:
    """Return the temperatures [tokens, T] at some numbers of tokens, for `RmaatConfig.temperatures`.

    They minimise the mean loss and the `ROUGHNESS` of the curve, see `rmaat.models.temperature`. The
    latter makes the curve straight where there are few examples.

    Args:
        loss: the loss of the examples.
        tokens_E: (E,), the number of tokens that the model has read.
        independent: the number of different examples.
        knots: K. It is 1 if all examples have the same number of tokens.
    """
    log_tokens_E = np.log(tokens_E)
    places_K = np.linspace(log_tokens_E.min(), log_tokens_E.max(), knots)
    start = np.log(fitted_temperature(loss))
    if knots == 1 or places_K[0] == places_K[-1]:
        return [[float(tokens_E.max()), float(np.exp(start))]]
    # Row k of the identity, interpolated, is the share of knot k in each example's log T.
    shares_EK = np.stack([np.interp(log_tokens_E, places_K, row_K) for row_K in np.eye(knots)], 1)
    bends = np.diff(np.eye(knots), n=2, axis=0)
    penalty = ROUGHNESS / independent

    def objective(log_T_K: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        factor_E = np.exp(-shares_EK @ log_T_K)
        loss_E, slope_E = loss(factor_E)
        bend = bends @ log_T_K
        gradient_K = 2 * penalty * bends.T @ bend - shares_EK.T @ (slope_E * factor_E) / len(loss_E)
        return float(loss_E.mean() + penalty * bend @ bend), gradient_K

    bounds = [tuple(np.log(TEMPERATURES))] * knots
    result: Any = minimize(objective, np.full(knots, start), jac=True, bounds=bounds, method="L-BFGS-B")
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

    The best checkpoint was chosen on examples of the same part. Each text is read whole and, for tasks
    of texts, cut to a random share between any two neighbours in `CUT_SHARES`.

    Returns:
        The `temperatures`, see `RmaatConfig`, and on the validation part the loss and the calibration
        error before, as `uncalibrated_eval_loss` and `uncalibrated_eval_calibration_error`.
    """
    count, draw = len(validation), np.random.default_rng(source.run.data_seed)
    shares = [np.ones(count)]
    if source.info.kind == "text":
        shares += [np.exp(draw.uniform(np.log(low), np.log(high), count)) for high, low in pairwise(CUT_SHARES)]
    read = [answers_to_beginnings(source, trainer, validation, shares_E) for shares_E in shares]
    logits_EC, labels_E, tokens_E = (
        np.concatenate([getattr(answers, name) for answers in read]) for name in ("logits", "labels", "tokens")
    )
    loss = source.problem.temperature_loss(logits_EC, labels_E, count)
    temperatures = fitted_knots(loss, tokens_E, count, KNOTS if len(read) > 1 else 1)
    trainer.model.config.temperatures = temperatures
    whole = read[0]
    return {
        "temperatures": temperatures,
        "uncalibrated_eval_loss": whole.loss,
        "uncalibrated_eval_calibration_error": source.problem.reliability(whole.logits, whole.labels).calibration_error,
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
