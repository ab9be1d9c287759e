"""A baseline for the user's own documents: TF-IDF with a linear model, by scikit-learn.

It takes seconds to minutes and reads no order beyond pairs of words. A model that is no better is not worth
its training.
"""

import importlib.util
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Literal

import numpy as np

from rmaat.errors import UserError
from rmaat.tasks.base import EncodedLabel
from rmaat.tasks.files import FilesTask
from rmaat.training.problems import Problem

CHARACTERS_READ = 2**26
"""Training texts are read up to this size in all, evenly spaced in the file."""

MOST_FEATURES = 2**20
"""Most words and pairs, those of the highest counts."""


def tfidf_score(task: FilesTask, problem: Problem) -> float | None:
    """Return the problem's main metric on the test part, of a linear model trained on the train file.

    Features are the TF-IDF of words and pairs of words that occur in two texts or more, with the
    logarithm of their counts. It has neither a validation part nor a random choice.

    Args:
        task: the documents.
        problem: its `rival` is the linear model: a logistic regression, one for each label if there
            are several, or a ridge regression of numbers.

    Returns:
        None if scikit-learn is not installed, or if there are no words or only one class, the files
        are gone, or the memory does not suffice.
    """
    if importlib.util.find_spec("sklearn") is None:
        return None
    from sklearn.feature_extraction.text import TfidfVectorizer

    # The training is over: whatever happens to the files by now must not cost its results.
    try:
        texts, labels = zip(*_training_examples(task), strict=True)
        # In few texts hardly any word occurs twice.
        words = {"min_df": 2 if len(texts) > 100 else 1, "max_features": MOST_FEATURES}
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, **words)
        with warnings.catch_warnings():
            # A label that each of the texts has, or none of them.
            warnings.filterwarnings("ignore", "Label .* is present in all training examples")
            rival = problem.rival().fit(vectorizer.fit_transform(texts), np.array(labels))
        tested, correct = zip(*_examples(task, "test"), strict=True)
        return problem.rival_score(rival, vectorizer.transform(tested), np.array(correct))
    except (UserError, OSError, ValueError, MemoryError):
        return None


def _training_examples(task: FilesTask) -> Iterator[tuple[str, EncodedLabel]]:
    """Return text and label of the training examples, or of so many that they fit into memory."""
    size = sum(len(text) for text, _ in _examples(task, "train"))
    return islice(_examples(task, "train"), 0, None, -(-size // CHARACTERS_READ))


def _examples(task: FilesTask, part: Literal["train", "test"]) -> Iterator[tuple[str, EncodedLabel]]:
    """Yield text and label of the examples of a part; the texts of a pair are joined."""
    return (("\n".join(texts), label) for texts, label in task.labelled_texts(part))
