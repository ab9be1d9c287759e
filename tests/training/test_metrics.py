"""The measurements against scikit-learn, and against counts by hand."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as reference
from transformers.trainer_utils import EvalPrediction

from rmaat.training.metrics import (
    accuracy,
    auc,
    binary_auc,
    class_scores,
    confusion_matrix,
    cross_entropy,
    reliability,
)
from rmaat.training.problems import PROBLEMS
from rmaat.training.trainer import reported_metrics

SINGLE = PROBLEMS["single_label_classification"]


def sample(seed: int, examples: int, classes: int, absent: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return logits with ties, and labels, without one class if `absent` names it."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([c for c in range(classes) if c != absent], examples)
    logits = rng.normal(size=(examples, classes)).round(1)
    logits[np.arange(examples), labels] += 0.7
    return logits.astype(np.float32), labels.astype(np.int64)


CASES = [(0, 400, 2, None), (1, 400, 5, None), (2, 60, 12, None), (3, 50, 4, 2), (4, 7, 9, 0)]


@pytest.mark.parametrize(("seed", "examples", "classes", "absent"), CASES)
def test_counts_and_scores_are_those_of_scikit_learn(seed, examples, classes, absent):
    logits, labels = sample(seed, examples, classes, absent)
    answers, names = logits.argmax(1), list(range(classes))
    assert accuracy(logits, labels) == pytest.approx(reference.accuracy_score(labels, answers))
    expected = reference.confusion_matrix(labels, answers, labels=names)
    np.testing.assert_array_equal(confusion_matrix(logits, labels), expected)
    scores = class_scores(logits, labels)
    wanted = reference.precision_recall_fscore_support(labels, answers, labels=names, zero_division=0)
    for one, other in zip((scores.precision, scores.recall, scores.f1, scores.support), wanted, strict=True):
        np.testing.assert_allclose(one, other)
    assert scores.f1_macro == pytest.approx(reference.f1_score(labels, answers, average="macro", zero_division=0))


@pytest.mark.parametrize(("seed", "examples", "classes", "absent"), CASES)
def test_the_loss_is_that_of_scikit_learn(seed, examples, classes, absent):
    logits, labels = sample(seed, examples, classes, absent)
    expected = reference.log_loss(labels, softmax(logits), labels=list(range(classes)))
    assert cross_entropy(logits, labels) == pytest.approx(expected, rel=1e-6)
    # Logits whose exponential overflows, and a label without probability in float64.
    assert cross_entropy(np.array([[0.0, 2000.0]]), np.array([0])) == 2000


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize(("seed", "examples", "classes", "absent"), CASES)
def test_the_area_is_that_of_scikit_learn_or_none(seed, examples, classes, absent):
    logits, labels = sample(seed, examples, classes, absent)
    if len(np.unique(labels)) < classes:
        assert auc(logits, labels) is None
        return
    probabilities = softmax(logits)
    scores = probabilities[:, 1] if classes == 2 else probabilities
    expected = reference.roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    assert auc(logits, labels) == pytest.approx(expected, rel=1e-9)


def test_the_area_counts_pairs_and_half_of_the_ties():
    rng = np.random.default_rng(5)
    scores, positive = rng.integers(0, 6, 40), rng.random(40) < 0.4
    pairs = np.sign(scores[positive][:, None] - scores[~positive]) / 2 + 0.5
    assert binary_auc(scores, positive) == pytest.approx(pairs.mean())
    assert binary_auc(scores, np.ones(40, bool)) is binary_auc(scores, np.zeros(40, bool)) is None
    # The probabilities of both examples are rounded to 1, their logits are distinct.
    saturated = np.array([[0, 100], [0, 90]], np.float32)
    assert auc(saturated, np.array([1, 0])) == 1


def test_calibration_errors_are_counted_by_hand():
    # Probabilities 0.75, 0.75, 0.95, 0.95 of the answers; one of each pair is wrong.
    logits = np.log(np.array([[0.75, 0.25], [0.25, 0.75], [0.95, 0.05], [0.05, 0.95]]))
    bins = reliability(logits, np.array([0, 0, 0, 0]), bins=10)
    assert bins.count.tolist() == [0] * 7 + [2, 0, 2]
    np.testing.assert_allclose(bins.confidence[[7, 9]], [0.75, 0.95])
    np.testing.assert_allclose(bins.accuracy[[7, 9]], [0.5, 0.5])
    assert bins.calibration_error == pytest.approx((0.25 + 0.45) / 2)
    # A probability on a border belongs to the bin below it; 1 belongs to the last.
    assert reliability(np.zeros((3, 2)), np.zeros(3, int), bins=2).count.tolist() == [3, 0]
    assert reliability(np.array([[0.0, 800.0]]), np.array([1]), bins=4).count.tolist() == [0, 0, 0, 1]


def test_the_calibration_error_is_that_of_a_loop():
    logits, labels = sample(6, 500, 4)
    confidence, right = softmax(logits).max(1), logits.argmax(1) == labels
    error = 0.0
    for k in range(15):
        chosen = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        error += abs(right[chosen].sum() - confidence[chosen].sum()) / 500
    assert reliability(logits, labels).calibration_error == pytest.approx(error)


def test_a_class_without_examples_and_answers_has_scores_of_zero_without_a_warning():
    logits, labels = np.array([[2.0, 0, 0], [0, 2, 0]]), np.array([0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = SINGLE.summary(logits, labels, ("a", "b", "c"))
    assert summary["classes"]["c"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert summary["f1_macro"] == 1
    assert summary["auc"] is None
    assert summary["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_the_matrix_of_many_classes_is_not_stored():
    logits, labels = sample(7, 300, 101)
    summary = SINGLE.summary(logits, labels, [str(c) for c in range(101)])
    assert summary["confusion"] is None
    assert sum(of_class["support"] for of_class in summary["classes"].values()) == 300


def test_reports_leave_out_what_is_not_known():
    logits, labels = sample(8, 30, 3)

    def report(logits, labels):
        return reported_metrics(EvalPrediction([logits[:20], logits[20:]], [labels[:20], labels[20:]]), SINGLE)

    assert report(logits, labels) == {
        "accuracy": accuracy(logits, labels),
        "f1_macro": class_scores(logits, labels).f1_macro,
        "auc": auc(logits, labels),
    }
    assert "auc" not in report(logits, np.minimum(labels, 1))
    logits[3, 1] = np.nan
    assert report(logits, labels) == {}
