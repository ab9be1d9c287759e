"""A baseline for the user's own documents: TF-IDF with logistic regression, by scikit-learn.

It takes seconds to minutes and reads no order beyond pairs of words. A model that is no better is not worth
its training.
"""

import importlib.util
from collections.abc import Iterator
from itertools import islice

from rmaat.errors import UserError
from rmaat.tasks.files import FilesTask

CHARACTERS_READ = 2**26
"""Training texts are read up to this size in all, evenly spaced in the file."""

MOST_FEATURES = 2**20
"""Most words and pairs, those of the highest counts."""


def tfidf_accuracy(task: FilesTask) -> float | None:
    """Return the accuracy on the test file of a classifier that the train file trained, in 0 .. 1.

    Features are the TF-IDF of words and pairs of words that occur in two texts or more, with the
    logarithm of their counts. It has neither a validation part nor a random choice. None if
    scikit-learn is not installed, or if there are no words or only one class, the files are gone, or
    the memory does not suffice.
    """
    if importlib.util.find_spec("sklearn") is None:
        return None
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    # The training is over: whatever happens to the files by now must not cost its results.
    try:
        texts, labels = zip(*_training_examples(task), strict=True)
        # In few texts hardly any word occurs twice.
        words = {"min_df": 2 if len(texts) > 100 else 1, "max_features": MOST_FEATURES}
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, **words)
        classifier = make_pipeline(vectorizer, LogisticRegression(C=10, max_iter=200))
        classifier.fit(texts, labels)
        tested, correct = zip(*_examples(task, "test_file"), strict=True)
        return float(classifier.score(tested, correct))
    except (UserError, OSError, ValueError, MemoryError):
        return None


def _training_examples(task: FilesTask) -> Iterator[tuple[str, int]]:
    """Return text and label of the training examples, or of so many that they fit into memory."""
    size = sum(len(text) for text, _ in _examples(task, "train_file"))
    return islice(_examples(task, "train_file"), 0, None, -(-size // CHARACTERS_READ))


def _examples(task: FilesTask, option: str) -> Iterator[tuple[str, int]]:
    """Yield text and label of the examples of a file; the texts of a pair are joined."""
    return (("\n".join(texts), label) for texts, label in task.labelled_texts(option))
