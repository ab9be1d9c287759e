"""Any number of labels for each example. An answer has the labels with a probability above a threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from rmaat.errors import printable
from rmaat.problems import MULTI_LABEL
from rmaat.tasks.labels import SEPARATOR
from rmaat.training import metrics as measures
from rmaat.training import run_folder
from rmaat.training.metrics import ClassScores, Reliability
from rmaat.training.problems.base import Labels, Outputs, Prediction, Problem, TemperatureLoss
from rmaat.training.problems.single_label import six_digits

if TYPE_CHECKING:
    from rich.table import Table

    from rmaat.models import RmaatConfig


@dataclass(frozen=True)
class LabelSetPrediction(Prediction):
    """The labels of an example, and the probability of each label.

    Attributes:
        labels: those with a probability above the threshold, by falling probability.
        probabilities: one for each of the task's `label_names`, in their order.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    def fields(self) -> tuple[str, ...]:
        """Return the labels and their probabilities."""
        chosen = sorted(self.probabilities, reverse=True)[: len(self.labels)]
        return printable(SEPARATOR.join(self.labels)), SEPARATOR.join(f"{p:.4f}" for p in chosen)

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the labels and the probabilities of all."""
        probabilities = dict(zip(names, map(six_digits, self.probabilities), strict=True))
        return {"labels": list(self.labels), "probabilities": probabilities}

    def cells(self) -> tuple[Any, ...]:
        """Return the labels and the probabilities of all."""
        return SEPARATOR.join(self.labels), *map(six_digits, self.probabilities)


def label_scores(answers_EC: NDArray[np.bool_], labels_EC: NDArray[np.bool_]) -> ClassScores:
    """Return precision, recall, F1 and support of each label; a quotient with the denominator 0 is 0."""
    support_C, answers_C, right_C = (x.sum(0) for x in (labels_EC, answers_EC, labels_EC & answers_EC))
    return ClassScores.of_counts(support_C, answers_C, right_C)


def f1_micro(answers_EC: NDArray[np.bool_], labels_EC: NDArray[np.bool_]) -> float:
    """Return F1 over all pairs of an example and a label; 0 if there is neither answer nor label."""
    pairs = int(answers_EC.sum() + labels_EC.sum())
    return float(2 * (answers_EC & labels_EC).sum() / max(pairs, 1))


def best_f1_micro(outputs_EC: Outputs, labels_EC: NDArray[np.bool_]) -> float:
    """Return the largest micro F1 of any one threshold."""
    right_P = labels_EC.ravel()[np.argsort(-outputs_EC, axis=None, kind="stable")]
    answers_P = np.arange(1, len(right_P) + 1)
    return float((2 * right_P.cumsum() / (answers_P + right_P.sum())).max())


@dataclass(frozen=True)
class LabelSetTemperatureLoss(TemperatureLoss):
    """The mean binary cross-entropy over the labels as a function of 1 / T.

    Attributes:
        logits: (E, C) float64.
        labels: (E, C), ones and zeros.
    """

    logits: NDArray[np.float64]
    labels: Labels

    def __call__(self, factor_E: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the losses and their derivatives."""
        scaled_EC = factor_E[:, None] * self.logits
        loss_EC = np.logaddexp(0, scaled_EC) - self.labels * scaled_EC
        return loss_EC.mean(1), ((expit(scaled_EC) - self.labels) * self.logits).mean(1)

    def doubt(self, factor_E: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the probability that each label is wrongly present or absent, and the derivatives."""
        size_EC = np.abs(self.logits)
        doubt_EC = expit(-factor_E[:, None] * size_EC)
        return doubt_EC, -size_EC * doubt_EC * (1 - doubt_EC)


@dataclass(frozen=True)
class MultiLabel(Problem):
    """Labels that do not exclude each other.

    Attributes:
        threshold: the probability above which a label belongs to an answer.
    """

    threshold: float = 0.5

    name = MULTI_LABEL
    titles = {  # noqa: RUF012
        "f1_micro": "micro F1",
        "f1_macro": "macro F1",
        "exact_match": "exact match",
        "auc": "area under ROC curve",
    }
    shares = ("f1_micro", "f1_macro", "exact_match")
    ranked_with_loss = ("f1_micro", "f1_macro", "exact_match", "auc")
    guesses = {"commonest_f1_micro": "always commonest set"}  # noqa: RUF012
    rival_name = "TF-IDF, logistic regr."
    details = ("classes", "reliability")

    def metrics(self, outputs_EC: Outputs, labels_E: Labels) -> dict[str, float]:
        """Return micro and macro F1, the share of wholly right sets, and the mean AUC of the labels.

        AUC is the mean over the labels that some examples have and others have not. It is left out if
        there is none.
        """
        answers_EC, labels_EC = self._answers(outputs_EC), labels_E > 0.5
        known = [area for area in areas(outputs_EC, labels_EC) if area is not None]
        scores = label_scores(answers_EC, labels_EC)
        # As in scikit-learn, a label without examples and without answers has the F1 0 in the mean of
        # all labels; here it is left out, as for classes.
        occurs_C = scores.support + scores.answers > 0
        return {
            "f1_micro": f1_micro(answers_EC, labels_EC),
            "f1_macro": float(scores.f1[occurs_C].mean()) if occurs_C.any() else 0.0,
            "exact_match": float((answers_EC == labels_EC).all(1).mean()),
            **({"auc": float(np.mean(known))} if known else {}),
        }

    def _answers(self, outputs_EC: Outputs) -> NDArray[np.bool_]:
        return outputs_EC > logit(self.threshold)

    def with_threshold(self, outputs_EC: Outputs, labels_E: Labels) -> MultiLabel:
        """Return the problem with the threshold of the best micro F1.

        If probabilities are calibrated, it is half of the best F1 (arXiv 1402.1892). That is steadier
        than the threshold at which few examples have their best F1.

        Args:
            outputs_EC: logits of validation examples.
            labels_E: (E, C).
        """
        half = best_f1_micro(outputs_EC, labels_E > 0.5) / 2
        return MultiLabel(half) if half else self

    def unknown_metric(self, metric: str, labels_E: Labels, names: Sequence[str]) -> str | None:
        """Return that AUC needs a label that some examples have and others have not."""
        if metric != "auc" or (np.ptp(labels_E, axis=0) > 0).any():
            return None
        return "validation examples with and without a label"

    def correct(self, outputs_EC: Outputs, labels_E: Labels) -> NDArray[np.bool_]:
        """Return where the whole set is right."""
        right_E: NDArray[np.bool_] = (self._answers(outputs_EC) == (labels_E > 0.5)).all(1)
        return right_E

    def balanced_weights(self, labels_E: Labels, classes: int) -> NDArray[np.float32]:
        """Return weights by which presence and absence of a label share its loss, (2, C) float32.

        With n of E examples a label has the weights E / (2 (E - n)) where it is absent and E / (2 n)
        where it is present: 'balanced' in scikit-learn for each label. If one of the two does not
        occur, the other one has the weight 1.
        """
        examples, present_C = len(labels_E), labels_E.sum(0, dtype=np.int64)
        counts_2C = np.stack([examples - present_C, present_C])
        weights_2C = examples / (2 * np.maximum(counts_2C, 1))
        return np.where((counts_2C > 0).all(0), weights_2C, 1).astype(np.float32)

    def guess(self, labels_E: Labels, config: RmaatConfig) -> dict[str, float]:
        """Return the scores of always guessing the commonest set of the part."""
        sets, counts = np.unique(labels_E, axis=0, return_counts=True)
        labels_EC = labels_E > 0.5
        guess_EC = np.broadcast_to(sets[counts.argmax()] > 0.5, labels_EC.shape)
        return {
            "commonest_f1_micro": f1_micro(guess_EC, labels_EC),
            "commonest_exact_match": float(counts.max() / len(labels_E)),
        }

    def summary(self, outputs_EC: Outputs, labels_E: Labels, names: Sequence[str]) -> dict[str, Any]:
        """Return all measurements but the loss.

        Returns:
            the `metrics`, with None for an unknown `auc`; `calibration_error` and `reliability` of the
            probabilities of all labels; `classes`, the precision, recall, f1, auc and support of each
            label by name.
        """
        labels_EC = labels_E > 0.5
        scores = label_scores(self._answers(outputs_EC), labels_EC)
        by_label = zip(
            names, scores.precision, scores.recall, scores.f1, areas(outputs_EC, labels_EC), scores.support, strict=True
        )
        bins = self.reliability(outputs_EC, labels_E)
        return {
            "auc": None,
            **self.metrics(outputs_EC, labels_E),
            "calibration_error": bins.calibration_error,
            "classes": {
                name: {"precision": float(p), "recall": float(r), "f1": float(f1), "auc": area, "support": int(support)}
                for name, p, r, f1, area, support in by_label
            },
            "reliability": {name: values.tolist() for name, values in asdict(bins).items()},
        }

    def temperature_loss(self, outputs_EC: Outputs, labels_E: Labels) -> TemperatureLoss:
        """Return the binary cross-entropy."""
        return LabelSetTemperatureLoss(outputs_EC.astype(np.float64), labels_E)

    def reliability(self, outputs_EC: Outputs, labels_E: Labels) -> Reliability:
        """Return the probability and the share of each label in bins of all pairs of example and label."""
        return measures.binned(expit(outputs_EC.astype(np.float64)).ravel(), (labels_E > 0.5).ravel())

    def outputs(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability of each label by itself."""
        probabilities: NDArray[np.float64] = expit(logits)
        return probabilities

    def prediction(self, logits_C: NDArray[np.float64], names: Sequence[str], truncated: bool) -> LabelSetPrediction:
        """Return the labels above the threshold, and the probabilities."""
        probabilities, answers_C = tuple(self.outputs(logits_C).tolist()), self._answers(logits_C)
        chosen = [index for index in np.argsort(-logits_C, kind="stable").tolist() if answers_C[index]]
        return LabelSetPrediction(truncated, tuple(names[index] for index in chosen), probabilities)

    def columns(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the columns of the labels and the probabilities."""
        return "labels", *(f"probability_{name}" for name in names)

    def uninformed(self, config: RmaatConfig) -> float:
        """Return the probability of a coin."""
        return 0.5

    def rival(self) -> Any:
        """Return a logistic regression for each label."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier

        return OneVsRestClassifier(LogisticRegression(C=10, max_iter=200))

    def rival_score(self, rival: Any, features: Any, labels_E: Labels) -> float:
        """Return micro F1."""
        return f1_micro(np.asarray(rival.predict(features)).reshape(labels_E.shape) > 0.5, labels_E > 0.5)

    def table(self, metrics: Mapping[str, Any]) -> Table:
        """Return a table with a row for each label."""
        from rmaat.training.problems.tables import class_table

        return class_table(metrics["test_classes"], "label")

    def draw(self, metrics: Mapping[str, Any], folder: Path) -> list[Path]:
        """Write the reliability of the probabilities of all labels."""
        from rmaat.training import evaluation_figures as figures

        path = folder / run_folder.RELIABILITY
        figures.draw_reliability(metrics["test_reliability"], metrics["test_calibration_error"], path)
        return [path]


def areas(outputs_EC: Outputs, labels_EC: NDArray[np.bool_]) -> list[float | None]:
    """Return the area under the ROC curve of each label; None if all examples have it, or none has."""
    return [measures.binary_auc(scores_E, has_E) for scores_E, has_E in zip(outputs_EC.T, labels_EC.T, strict=True)]
