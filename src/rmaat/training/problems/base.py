"""The interface of a problem type in training: metrics, predictions, printed lines, figures, baselines.

Axes: E examples, T segments, C labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rmaat.problems import PROBLEM_SETTINGS

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from rmaat.models import RmaatConfig
    from rmaat.training.metrics import Reliability

Outputs = NDArray[np.floating[Any]]
"""(E, C) finite logits or, for numbers, (E, 1) predicted numbers; see `Problem.collected`."""
Labels = NDArray[Any]
"""(E,) class indices or numbers, or (E, C) ones and zeros; see `Problem.collected`."""


NOT_OF_NUMBERS = "only problem types with classes have this; the settings exclude it for others"
"""The message of an impossible call, see `ProblemSettings.excluded`."""


@dataclass(frozen=True)
class Prediction(ABC):
    """What a model says about an example.

    Attributes:
        truncated: True if the end of a text was not read.
    """

    truncated: bool

    @abstractmethod
    def fields(self) -> tuple[str, ...]:
        """Return what `rmaat predict` prints behind the name, in columns."""

    @abstractmethod
    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the prediction as an object of JSON Lines, without the example's name.

        Args:
            names: of the model's outputs.
        """

    @abstractmethod
    def cells(self) -> tuple[Any, ...]:
        """Return the prediction as a row of CSV, without the example's name; see `Problem.columns`."""


class TemperatureLoss(ABC):
    """Loss and doubt of examples as functions of the factor 1 / T of their logits.

    The doubt of an answer is 1 minus its probability. D counts the answers to an example: one class,
    or presence or absence of each label.
    """

    @abstractmethod
    def __call__(self, factor_E: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the loss of each example and its derivative by the factor, (E,) both."""

    @abstractmethod
    def doubt(self, factor_E: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the doubt of each answer and its derivative by the factor, (E, D) both."""


class Problem(ABC):
    """A problem type; its facts for the settings are in `rmaat.problems`.

    Attributes:
        name: the name of transformers.
        titles: names of metrics for people, in the order in which they are reported.
        shares: the metrics that are printed in percent.
        ranked_with_loss: the metrics, from 0 to 1, of which equal values are ordered by the loss.
        details: measurements of several numbers; only those of the test part are stored.
        explained: the key of the model's outputs in explanation.json.
        explained_unit, change_unit: what follows the name of an explained output, and its change.
        guesses: those of the measurements of `guess` that are in the unit of the main metric, with
            names for people.
        rival_name: the name of the baseline on TF-IDF, for people.
        evaluation_arguments: further arguments of the model in evaluations.
    """

    name: str
    titles: Mapping[str, str]
    guesses: Mapping[str, str]
    rival_name: str
    shares: tuple[str, ...] = ()
    ranked_with_loss: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    explained: str = "probabilities"
    explained_unit: str = " (%)"
    change_unit: str = " points"
    evaluation_arguments: Mapping[str, Any] = {}

    def collected(self, outputs: Any, labels: Tensor, config: RmaatConfig) -> tuple[Any, Tensor]:
        """Return what an evaluation keeps of a batch: the outputs, (B, C), and the labels.

        Args:
            outputs: of the model, without its loss and state; a tensor, or a tuple of several.
            labels: of the batch.
            config: of the model.
        """
        return outputs, labels

    @property
    def main_metric(self) -> str:
        """The usual metric, which progress and curves show."""
        return next(iter(PROBLEM_SETTINGS[self.name].metrics))

    @abstractmethod
    def metrics(self, outputs_EC: Outputs, labels_E: Labels) -> dict[str, float]:
        """Return the metrics of the best checkpoint but the loss; those that are unknown are left out."""

    def loss(self, outputs_EC: Outputs, labels_E: Labels) -> float | None:
        """Return the loss of all examples; None if it is the mean of the losses of batches."""
        return None

    def rank(self, metric: str, metrics: Mapping[str, float], loss: float) -> float:
        """Return a number that orders checkpoints: the larger, the better.

        Of checkpoints with equal accuracies, F1 or areas the one with the lower loss is better. On an easy
        task many checkpoints have all answers right. The first of them is from the middle of the
        training, and has a higher loss than later ones.

        Args:
            metric: one of the problem type's `ProblemSettings.metrics`.
            metrics: their values.
            loss: the loss.
        """
        if metric == "loss":
            return -loss
        if not PROBLEM_SETTINGS[self.name].metrics[metric]:
            return -metrics[metric]
        # Two accuracies on fewer than a million examples differ by more than the second term.
        return metrics[metric] + (1e-6 / (1 + loss) if metric in self.ranked_with_loss else 0)

    def unknown_metric(self, metric: str, labels_E: Labels, names: Sequence[str]) -> str | None:
        """Return why a metric cannot be computed for these labels, or None."""
        return None

    def correct(self, outputs_EC: Outputs, labels_E: Labels) -> NDArray[np.bool_] | NDArray[np.float64]:
        """Return which answers are right, or the share that is, (E,), for a curriculum."""
        raise AssertionError(NOT_OF_NUMBERS)

    def balanced_weights(self, labels_E: Labels, classes: int) -> NDArray[np.float32]:
        """Return the weights of class_weights 'balanced', see `rmaat.models.losses`."""
        raise AssertionError(NOT_OF_NUMBERS)

    @abstractmethod
    def guess(self, labels_E: Labels, config: RmaatConfig) -> dict[str, float]:
        """Return metrics of a guess that reads nothing, by their names in `metrics.json`, without 'test_'."""

    @abstractmethod
    def summary(self, outputs_EC: Outputs, labels_E: Labels, names: Sequence[str]) -> dict[str, Any]:
        """Return all measurements but the loss, in the form of `metrics.json`."""

    def temperature_loss(self, outputs_EC: Outputs, labels_E: Labels) -> TemperatureLoss:
        """Return the loss of some examples for the fit of a temperature.

        Args:
            outputs_EC: (E, C), of examples that the model was not trained on.
            labels_E: (E,), or (E, C).
        """
        raise AssertionError(NOT_OF_NUMBERS)

    def reliability(self, outputs_EC: Outputs, labels_E: Labels) -> Reliability:
        """Return the confidence and the accuracy in bins."""
        raise AssertionError(NOT_OF_NUMBERS)

    @abstractmethod
    def outputs(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities or numbers (..., C)."""

    @abstractmethod
    def prediction(self, logits_C: NDArray[np.float64], names: Sequence[str], truncated: bool) -> Prediction:
        """Return the prediction for an example."""

    @abstractmethod
    def columns(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the headings of `Prediction.cells`."""

    @abstractmethod
    def uninformed(self, config: RmaatConfig) -> float:
        """Return the output of a model that has read nothing, for an explanation."""

    def shown(self, output: float) -> str:
        """Return an output for people: a probability in percent."""
        return f"{100 * output:.1f}%"

    def shown_change(self, change: float) -> str:
        """Return the change of an output for people, with its sign: in percentage points."""
        return f"{100 * change:+.1f}"

    @abstractmethod
    def rival(self) -> Any:
        """Return the estimator of scikit-learn, on TF-IDF, that the model should beat; not fitted."""

    @abstractmethod
    def rival_score(self, rival: Any, features: Any, labels_E: Labels) -> float:
        """Return the main metric of the fitted rival."""

    def rows(self, metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return names and values, for people, of a test: main metric, guesses, TF-IDF, the rest.

        Args:
            metrics: measurements by their names in `metrics.json`. Those that are missing are left out.
        """
        main = self.main_metric
        rows = [(f"test {self.titles[main]}", self.value(main, metrics[f"test_{main}"]))]
        rows += [(name, self.value(main, metrics[f"test_{key}"])) for key, name in self.guesses.items()]
        if (key := f"test_tfidf_{main}") in metrics:
            unknown = "unknown (it needs `pip install 'rmaat[documents]'`)"
            rows.append((self.rival_name, unknown if metrics[key] is None else self.value(main, metrics[key])))
        others = [name for name in self.titles if name != main]
        return rows + [(self.titles[name], self.value(name, metrics[f"test_{name}"])) for name in others]

    def value(self, metric: str, value: float | None) -> str:
        """Return the value of a metric for people."""
        if value is None:
            return "unknown: a class has no example"
        return f"{100 * value:6.2f}%" if metric in self.shares else f"{value:7.4f}"

    def table(self, metrics: Mapping[str, Any]) -> Table | None:
        """Return a table of the classes; None if there are none."""
        return None

    @abstractmethod
    def draw(self, metrics: Mapping[str, Any], folder: Path) -> list[Path]:
        """Write the figures of a test, and return their paths."""
