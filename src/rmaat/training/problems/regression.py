"""A number for each example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rmaat.problems import REGRESSION
from rmaat.training import run_folder
from rmaat.training.problems.base import Labels, Outputs, Prediction, Problem
from rmaat.training.problems.single_label import six_digits

if TYPE_CHECKING:
    from rmaat.models import RmaatConfig

MOST_POINTS = 1000
"""Examples whose predicted and true numbers are stored for the figure."""


@dataclass(frozen=True)
class NumberPrediction(Prediction):
    """The predicted number of an example, in the unit of the training file.

    Attributes:
        value: the number.
    """

    value: float

    def fields(self) -> tuple[str, ...]:
        """Return the number."""
        return (f"{self.value:.6g}",)

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the number."""
        return {"value": six_digits(self.value)}

    def cells(self) -> tuple[Any, ...]:
        """Return the number."""
        return (six_digits(self.value),)


def number_scores(predicted_E: NDArray[Any], true_E: NDArray[Any]) -> dict[str, float]:
    """Return mean absolute error, root of the mean squared error, R^2 and Pearson's correlation.

    R^2 = 1 - sum (y - f)^2 / sum (y - mean y)^2 is left out if all true numbers are equal, and the
    correlation too, or if all predicted ones are.
    """
    predicted_E, true_E = predicted_E.astype(np.float64), true_E.astype(np.float64)
    error_E, spread_E = predicted_E - true_E, true_E - true_E.mean()
    centred_E = predicted_E - predicted_E.mean()
    scores = {"mae": float(abs(error_E).mean()), "rmse": float(np.sqrt(np.square(error_E).mean()))}
    if total := float(np.square(spread_E).sum()):
        scores["r2"] = 1 - float(np.square(error_E).sum()) / total
        if of_predicted := float(np.square(centred_E).sum()):
            scores["pearson"] = float(centred_E @ spread_E) / float(np.sqrt(total * of_predicted))
    return scores


class Regression(Problem):
    """Numbers, with the squared error as loss."""

    name = REGRESSION
    titles = {  # noqa: RUF012
        "mae": "mean absolute error",
        "rmse": "root of mean square",
        "r2": "R^2",
        "pearson": "Pearson's correlation",
    }
    guesses = {"mean_mae": "always mean of train"}  # noqa: RUF012
    rival_name = "TF-IDF, ridge regression"
    details = ("points",)
    explained = "values"
    explained_unit = ""
    change_unit = ""

    def metrics(self, outputs_EC: Outputs, labels_E: Labels) -> dict[str, float]:
        """Return the errors, R^2 and the correlation."""
        return number_scores(outputs_EC[:, 0], labels_E)

    def unknown_metric(self, metric: str, labels_E: Labels, names: Sequence[str]) -> str | None:
        """Return that R^2 and the correlation need different numbers."""
        if metric not in ("r2", "pearson") or np.ptp(labels_E) > 0:
            return None
        return "validation examples with different numbers"

    def guess(self, labels_E: Labels, config: RmaatConfig) -> dict[str, float]:
        """Return the errors of always guessing the mean of the training part."""
        scores = number_scores(np.full(len(labels_E), config.label_mean), labels_E)
        return {f"mean_{name}": scores[name] for name in ("mae", "rmse")}

    def summary(self, outputs_EC: Outputs, labels_E: Labels, names: Sequence[str]) -> dict[str, Any]:
        """Return all measurements but the loss.

        Returns:
            the `metrics`, None for those that are unknown; `points`, the `true` and the `predicted`
            numbers of at most `MOST_POINTS` examples, evenly spaced by the predicted number.
        """
        order = np.argsort(outputs_EC[:, 0], kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, min(len(order), MOST_POINTS)).round().astype(int)]
        points = {"true": labels_E[chosen].tolist(), "predicted": outputs_EC[chosen, 0].tolist()}
        return {**dict.fromkeys(self.titles), **self.metrics(outputs_EC, labels_E), "points": points}

    def outputs(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the numbers."""
        return logits

    def prediction(self, logits_C: NDArray[np.float64], names: Sequence[str], truncated: bool) -> NumberPrediction:
        """Return the number."""
        return NumberPrediction(truncated, float(logits_C[0]))

    def columns(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the column of the number."""
        return ("value",)

    def uninformed(self, config: RmaatConfig) -> float:
        """Return the mean of the training part."""
        return float(config.label_mean)

    def shown(self, output: float) -> str:
        """Return six digits."""
        return f"{output:.6g}"

    def shown_change(self, change: float) -> str:
        """Return six digits and the sign."""
        return f"{change:+.6g}"

    def value(self, metric: str, value: float | None) -> str:
        """Return six digits of an error, which may have any size."""
        return "unknown: all numbers are equal" if value is None else f"{value:7.6g}"

    def rival(self) -> Any:
        """Return a ridge regression."""
        from sklearn.linear_model import Ridge

        return Ridge()

    def rival_score(self, rival: Any, features: Any, labels_E: Labels) -> float:
        """Return the mean absolute error."""
        return number_scores(rival.predict(features), labels_E)["mae"]

    def draw(self, metrics: Mapping[str, Any], folder: Path) -> list[Path]:
        """Write the predicted against the true numbers."""
        from rmaat.training import evaluation_figures as figures

        path = folder / run_folder.PREDICTIONS
        figures.draw_numbers(metrics["test_points"], metrics["test_rmse"], path)
        return [path]
