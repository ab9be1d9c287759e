"""One class for each example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import printable
from rmaat.problems import SINGLE_LABEL
from rmaat.training import metrics as measures
from rmaat.training import run_folder
from rmaat.training.metrics import Reliability
from rmaat.training.problems.base import Labels, Outputs, Prediction, Problem, TemperatureLoss

if TYPE_CHECKING:
    from rich.table import Table

    from rmaat.models import RmaatConfig

MOST_STORED_CLASSES = 100
"""The confusion matrix of more classes is not stored: it would have more than 10,000 numbers."""


@dataclass(frozen=True)
class ClassPrediction(Prediction):
    """The most probable label of an example, and the probabilities of all labels.

    Attributes:
        label: the label.
        probabilities: one for each of the task's `label_names`, in their order.
    """

    label: str
    probabilities: tuple[float, ...]

    @property
    def probability(self) -> float:
        """The probability of the label."""
        return max(self.probabilities)

    def fields(self) -> tuple[str, ...]:
        """Return the label and its probability."""
        return printable(self.label), f"{self.probability:.4f}"

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the label and the probabilities of all."""
        probabilities = dict(zip(names, map(six_digits, self.probabilities), strict=True))
        return {"label": self.label, "probabilities": probabilities}

    def cells(self) -> tuple[Any, ...]:
        """Return the label and the probabilities of all."""
        return self.label, *map(six_digits, self.probabilities)


def six_digits(number: float) -> float:
    """Return six digits of a number; the model computes with about as many."""
    return float(f"{number:.6g}")


@dataclass(frozen=True)
class ClassTemperatureLoss(TemperatureLoss):
    """The cross-entropy of classes as a function of 1 / T.

    Attributes:
        logits: (E, C) float64.
        labels: (E,).
    """

    logits: NDArray[np.float64]
    labels: Labels

    def __call__(self, factor_E: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the losses and their derivatives."""
        scaled_EC = factor_E[:, None] * self.logits
        normaliser_E = measures.log_normaliser(scaled_EC)
        mean_E = (np.exp(scaled_EC - normaliser_E[:, None]) * self.logits).sum(1)
        of_label_E = np.take_along_axis(self.logits, self.labels[:, None], 1)[:, 0]
        return normaliser_E - factor_E * of_label_E, mean_E - of_label_E

    def doubt(self, factor_E: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the probabilities of all other classes together, and their derivatives, (E, 1)."""
        scaled_EC = factor_E[:, None] * self.logits
        shares_EC = np.exp(scaled_EC - measures.log_normaliser(scaled_EC)[:, None])
        mean_E1 = (shares_EC * self.logits).sum(1, keepdims=True)
        # 1 - max(shares) would have lost its digits if it is small.
        np.put_along_axis(shares_EC, self.logits.argmax(1)[:, None], 0, 1)
        return shares_EC.sum(1, keepdims=True), (shares_EC * (self.logits - mean_E1)).sum(1, keepdims=True)


class SingleLabel(Problem):
    """Classes that exclude each other."""

    name = SINGLE_LABEL
    titles = {"accuracy": "accuracy", "f1_macro": "macro F1", "auc": "area under ROC curve"}  # noqa: RUF012
    shares = ("accuracy", "f1_macro")
    ranked_with_loss = ("accuracy", "f1_macro", "auc")
    guesses = {"majority_accuracy": "always commonest class"}  # noqa: RUF012
    rival_name = "TF-IDF, logistic regr."
    details = ("classes", "confusion", "reliability")

    def metrics(self, outputs_EC: Outputs, labels_E: Labels) -> dict[str, float]:
        """Return accuracy, macro F1 and, if every class occurs, AUC."""
        scores = {
            "accuracy": measures.accuracy(outputs_EC, labels_E),
            "f1_macro": measures.class_scores(outputs_EC, labels_E).f1_macro,
            "auc": measures.auc(outputs_EC, labels_E),
        }
        return {name: value for name, value in scores.items() if value is not None}

    def unknown_metric(self, metric: str, labels_E: Labels, names: Sequence[str]) -> str | None:
        """Return that AUC needs examples of every class."""
        if metric != "auc":
            return None
        missing = np.flatnonzero(np.bincount(labels_E, minlength=len(names)) == 0)
        return f"validation examples of every class, and '{names[missing[0]]}' has none" if len(missing) else None

    def correct(self, outputs_EC: Outputs, labels_E: Labels) -> NDArray[np.bool_]:
        """Return where the class with the largest logit is the label."""
        right_E: NDArray[np.bool_] = outputs_EC.argmax(1) == labels_E
        return right_E

    def balanced_weights(self, labels_E: Labels, classes: int) -> NDArray[np.float32]:
        """Return weights by which all classes have the same share of the loss, (C,) float32.

        The weight of a class with n of E examples is E / (C n), where C counts the classes that occur;
        'balanced' in scikit-learn. A class that does not occur has the weight 0.
        """
        counts_C = np.bincount(labels_E, minlength=classes)
        shares_C = len(labels_E) / (np.count_nonzero(counts_C) * np.maximum(counts_C, 1))
        return np.where(counts_C > 0, shares_C, 0).astype(np.float32)

    def guess(self, labels_E: Labels, config: RmaatConfig) -> dict[str, float]:
        """Return the accuracy of always guessing the commonest class of the part."""
        return {"majority_accuracy": float(np.bincount(labels_E).max() / len(labels_E))}

    def summary(self, outputs_EC: Outputs, labels_E: Labels, names: Sequence[str]) -> dict[str, Any]:
        """Return all measurements but the loss.

        Returns:
            `accuracy`; `f1_macro`; `auc`, None if a class has no example; `calibration_error`;
            `classes`, the precision, recall, f1 and support of each class by name; `confusion`, a list
            of rows as in `confusion_matrix`, None with more than `MOST_STORED_CLASSES` classes;
            `reliability`, the attributes of `Reliability` as lists.
        """
        scores = measures.class_scores(outputs_EC, labels_E)
        by_class = zip(names, scores.precision, scores.recall, scores.f1, scores.support, strict=True)
        few = len(names) <= MOST_STORED_CLASSES
        bins = self.reliability(outputs_EC, labels_E)
        return {
            "accuracy": measures.accuracy(outputs_EC, labels_E),
            "f1_macro": scores.f1_macro,
            "auc": measures.auc(outputs_EC, labels_E),
            "calibration_error": bins.calibration_error,
            "classes": {
                name: {"precision": float(p), "recall": float(r), "f1": float(f1), "support": int(support)}
                for name, p, r, f1, support in by_class
            },
            "confusion": measures.confusion_matrix(outputs_EC, labels_E).tolist() if few else None,
            "reliability": {name: values.tolist() for name, values in asdict(bins).items()},
        }

    def temperature_loss(self, outputs_EC: Outputs, labels_E: Labels) -> TemperatureLoss:
        """Return the cross-entropy."""
        return ClassTemperatureLoss(outputs_EC.astype(np.float64), labels_E)

    def reliability(self, outputs_EC: Outputs, labels_E: Labels) -> Reliability:
        """Return the confidence and the accuracy of the answers in bins."""
        return measures.reliability(outputs_EC, labels_E)

    def outputs(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the softmax."""
        shares = np.exp(logits - logits.max(-1, keepdims=True))
        probabilities: NDArray[np.float64] = shares / shares.sum(-1, keepdims=True)
        return probabilities

    def prediction(self, logits_C: NDArray[np.float64], names: Sequence[str], truncated: bool) -> ClassPrediction:
        """Return the most probable class, and the probabilities."""
        probabilities_C = self.outputs(logits_C)
        return ClassPrediction(truncated, names[int(probabilities_C.argmax())], tuple(probabilities_C.tolist()))

    def columns(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the columns of the label and the probabilities."""
        return "label", *(f"probability_{name}" for name in names)

    def uninformed(self, config: RmaatConfig) -> float:
        """Return the probability of a guess among all classes."""
        return float(1 / config.num_labels)

    def rival(self) -> Any:
        """Return a logistic regression."""
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=10, max_iter=200)

    def rival_score(self, rival: Any, features: Any, labels_E: Labels) -> float:
        """Return the accuracy."""
        return float(rival.score(features, labels_E))

    def table(self, metrics: Mapping[str, Any]) -> Table:
        """Return a table with a row for each class."""
        from rmaat.training.problems.tables import class_table

        return class_table(metrics["test_classes"], "class")

    def draw(self, metrics: Mapping[str, Any], folder: Path) -> list[Path]:
        """Write the reliability and, if the metrics hold it, the confusion matrix."""
        from rmaat.training import evaluation_figures as figures

        paths = [folder / run_folder.RELIABILITY]
        figures.draw_reliability(metrics["test_reliability"], metrics["test_calibration_error"], paths[0])
        if metrics["test_confusion"] is not None:
            paths.append(folder / run_folder.CONFUSION)
            figures.draw_confusion(metrics["test_confusion"], tuple(metrics["test_classes"]), paths[1])
        return paths
