"""TF-IDF with logistic regression: the texts it learns from, its accuracy, its entry in a run's results."""

import json
from pathlib import Path

import numpy as np
import pytest

from rmaat.tasks.files import files_task
from rmaat.tasks.options import FilesOptions
from rmaat.training import baseline
from rmaat.training.problems import PROBLEMS

pytest.importorskip("sklearn")

SINGLE = PROBLEMS["single_label_classification"]

WORDS = {0: "rain wind sun", 1: "bread salt soup"}


def write(path: Path, rows: list[tuple[str, int]]) -> str:
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return str(path)


def documents(count: int, seed: int) -> list[tuple[str, int]]:
    """Texts of words of their class, and of words of both."""
    rng = np.random.default_rng(seed)
    words = [*WORDS[0].split(), *WORDS[1].split()]
    own = [rng.choice(WORDS[i % 2].split(), 6) for i in range(count)]
    return [(" ".join([*some, *rng.choice(words, 4), f"n{seed}x{i}"]), i % 2) for i, some in enumerate(own)]


@pytest.fixture
def options(tmp_path: Path) -> FilesOptions:
    train, test = (write(tmp_path / f"{seed}.jsonl", documents(60, seed)) for seed in range(2))
    return FilesOptions(train_file=train, test_file=test)


def test_words_of_the_classes_are_learned(options: FilesOptions) -> None:
    assert baseline.tfidf_score(files_task(options), SINGLE) > 0.9


def test_labels_that_say_nothing_are_not(options: FilesOptions, tmp_path: Path) -> None:
    shuffled = [(text, i // 2 % 2) for i, (text, _) in enumerate(documents(60, 0))]
    options.train_file = write(tmp_path / "shuffled.jsonl", shuffled)
    assert 0.3 < baseline.tfidf_score(files_task(options), SINGLE) < 0.7


def test_examples_of_test_are_not_learned(options: FilesOptions) -> None:
    """The wrong labels of train would decide if its copies of the test examples were learned."""
    assert options.train_file is not None
    with Path(options.train_file).open("a") as file:
        for text, label in documents(60, 1) * 3:
            file.write(json.dumps({"text": text, "label": 1 - label}) + "\n")
    assert baseline.tfidf_score(files_task(options), SINGLE) > 0.9


def test_some_of_many_texts_are_read(options: FilesOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(len(text) for text, _ in documents(60, 0))
    monkeypatch.setattr(baseline, "CHARACTERS_READ", size // 4 + 1)
    # Every fourth example has label 0, so there is only one class to learn.
    assert baseline.tfidf_score(files_task(options), SINGLE) is None


def test_texts_without_words_have_no_accuracy(options: FilesOptions, tmp_path: Path) -> None:
    options.train_file = write(tmp_path / "signs.jsonl", [("! " * i, i % 2) for i in range(1, 9)])
    assert baseline.tfidf_score(files_task(options), SINGLE) is None


def test_a_run_has_it_beside_its_own_accuracy(own_text_run: Path) -> None:
    assert json.loads((own_text_run / "metrics.json").read_text())["test_tfidf_accuracy"] == 1.0
