"""Measurements of a classifier: pure functions of logits and labels, in NumPy.

Axes: E examples, C classes, K bins. The answer to an example is the class with the largest logit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.floating[Any]]
"""(E, C) finite logits. Sums over them are in float64."""
Labels = NDArray[np.int64]
"""(E,) class indices, 0 .. C - 1."""

BINS = 15
"""Bins of the expected calibration error, as in arXiv 1706.04599."""


def accuracy(logits_EC: Logits, labels_E: Labels) -> float:
    """Return the share of right answers, in 0 .. 1."""
    return float(np.mean(logits_EC.argmax(1) == labels_E))


def confusion_matrix(logits_EC: Logits, labels_E: Labels) -> NDArray[np.int64]:
    """Return the numbers of examples by label (row) and answer (column), (C, C) int64."""
    classes = logits_EC.shape[1]
    pairs = labels_E * classes + logits_EC.argmax(1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class ClassScores:
    """The scores of each class, (C,) each.

    A quotient with the denominator 0 is 0, as in scikit-learn with zero_division=0.

    Attributes:
        precision: the share of the answers with the class that are right.
        recall: the share of the examples of the class whose answers are right.
        f1: the harmonic mean of both.
        support: the number of examples of the class.
        answers: the number of answers with the class.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]
    answers: NDArray[np.int64]

    @classmethod
    def of_counts(
        cls, support_C: NDArray[np.int64], answers_C: NDArray[np.int64], right_C: NDArray[np.int64]
    ) -> "ClassScores":
        """Return the scores from the numbers of examples, of answers and of right answers, (C,) each."""
        precision_C = right_C / np.maximum(answers_C, 1)
        recall_C = right_C / np.maximum(support_C, 1)
        f1_C = 2 * right_C / np.maximum(answers_C + support_C, 1)
        return cls(precision_C, recall_C, f1_C, support_C, answers_C)

    @property
    def f1_macro(self) -> float:
        """The mean F1 of the classes that occur as a label or as an answer, as in scikit-learn."""
        return float(self.f1[self.support + self.answers > 0].mean())


def class_scores(logits_EC: Logits, labels_E: Labels) -> ClassScores:
    """Return precision, recall, F1 and support of each class, in O(E C) time and O(C) memory."""
    answers_E, classes = logits_EC.argmax(1), logits_EC.shape[1]
    support_C, answers_C, right_C = (
        np.bincount(x, minlength=classes) for x in (labels_E, answers_E, labels_E[answers_E == labels_E])
    )
    return ClassScores.of_counts(support_C, answers_C, right_C)


def binary_auc(scores_E: NDArray[np.floating[Any]], positive_E: NDArray[np.bool_]) -> float | None:
    """Return the area under the ROC curve, from the ranks of the scores (Mann and Whitney, 1947).

    It is the probability that a positive example has a higher score than a negative one. Equal
    scores count half.

    Args:
        scores_E: (E,).
        positive_E: (E,).

    Returns:
        None if there are only positive or only negative examples.
    """
    positives = int(positive_E.sum())
    negatives = len(positive_E) - positives
    if not positives or not negatives:
        return None
    _, inverse_E, counts = np.unique(scores_E, return_inverse=True, return_counts=True)
    # Equal scores share the mean of their ranks, which begin with 1.
    ranks = np.cumsum(counts) - (counts - 1) / 2
    smallest_sum = positives * (positives + 1) / 2
    return float((ranks[inverse_E][positive_E].sum() - smallest_sum) / (positives * negatives))


def auc(logits_EC: Logits, labels_E: Labels) -> float | None:
    """Return the area under the ROC curve; for more than two classes the mean, one against the rest.

    Scores are differences of logits or logarithms of probabilities. They order examples as
    probabilities do, but remain distinct where a probability is rounded to 1.

    Returns:
        None if a class has no example.
    """
    logits_EC = logits_EC.astype(np.float64)
    if logits_EC.shape[1] == 2:
        return binary_auc(logits_EC[:, 1] - logits_EC[:, 0], labels_E == 1)
    logits_EC -= log_normaliser(logits_EC)[:, None]
    areas = [binary_auc(scores_E, labels_E == index) for index, scores_E in enumerate(logits_EC.T)]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if len(known) == len(areas) else None


def log_normaliser(logits_EC: Logits) -> NDArray[np.float64]:
    """Return log sum_c exp(z_c), (E,) float64."""
    return np.logaddexp.reduce(logits_EC, axis=1, dtype=np.float64)


def cross_entropy(logits_EC: Logits, labels_E: Labels) -> float:
    """Return the mean of -log p(label), in nats."""
    of_label_E = np.take_along_axis(logits_EC, labels_E[:, None], 1)[:, 0]
    return float(np.mean(log_normaliser(logits_EC) - of_label_E))


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy of the answers in bins of equal width, (K,) each.

    Bin k holds the answers with a probability in (k / K, (k + 1) / K]. The means of an empty bin
    are 0.

    Attributes:
        confidence: the mean probability of the answers.
        accuracy: the share of right answers.
        count: the number of answers.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]

    @property
    def calibration_error(self) -> float:
        """The expected calibration error, mean |accuracy - confidence| (arXiv 1706.04599)."""
        return float(np.average(abs(self.accuracy - self.confidence), weights=self.count))


def reliability(logits_EC: Logits, labels_E: Labels, bins: int = BINS) -> Reliability:
    """Return the confidence and the accuracy of the answers in `bins` bins of confidence."""
    confidence_E = np.exp(logits_EC.max(1) - log_normaliser(logits_EC))
    return binned(confidence_E, logits_EC.argmax(1) == labels_E, bins)


def binned(confidence_E: NDArray[np.float64], right_E: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Return mean probability and share of right answers in `bins` bins of the probability."""
    bin_E = np.clip(np.ceil(confidence_E * bins).astype(np.int64) - 1, 0, bins - 1)
    count_K = np.bincount(bin_E, minlength=bins)
    confidence_K, accuracy_K = (
        np.bincount(bin_E, weights, minlength=bins) / np.maximum(count_K, 1) for weights in (confidence_E, right_E)
    )
    return Reliability(confidence_K, accuracy_K, count_K)


def joined(batches: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the rows of all batches as one array."""
    return np.concatenate(batches)
