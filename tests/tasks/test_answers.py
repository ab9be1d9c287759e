"""mqar, copy, selective_copy: answers found from the text alone, from nothing less, and learned."""

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.tasks import load, task_of
from rmaat.tasks.answers import GAP_EXPONENT, AnswersTask
from rmaat.tasks.base import Counts
from rmaat.tasks.collate import Collator
from rmaat.tasks.generate import generate
from rmaat.tasks.options import MemoryOptions
from rmaat.tasks.reader import TokenReader
from rmaat.tasks.statistics import dataset_statistics, label_summary

IGNORED = -100
COUNTS = Counts(train=60, validation=20, test=20)

VARIANTS = [
    ("mqar", MemoryOptions()),
    ("mqar", MemoryOptions(sequence_tokens=64, pairs=16, vocabulary=34)),
    ("mqar", MemoryOptions(sequence_tokens=64, pairs=4, vocabulary=8192)),
    ("copy", MemoryOptions()),
    ("copy", MemoryOptions(sequence_tokens=21, symbols=10, vocabulary=300)),
    ("selective_copy", MemoryOptions()),
    ("selective_copy", MemoryOptions(sequence_tokens=11, symbols=5, vocabulary=4)),
]


def answers_task(name: str, options: MemoryOptions | None = None) -> AnswersTask:
    task = task_of(name, options)
    assert isinstance(task, AnswersTask)
    return task


# An oracle yields the position of each answer and its word, reading the words one after another.


def solve_mqar(words: list[str]) -> Iterator[tuple[int, str]]:
    values: dict[str, str] = {}
    for place, word in enumerate(words):
        if word in values:
            yield place + 1, values[word]
        elif word.startswith("k"):
            values[word] = words[place + 1]
            assert re.fullmatch(r"v\d+", values[word])


def solve_copy(words: list[str]) -> Iterator[tuple[int, str]]:
    end = words.index("|")
    string = [word for word in words[:end] if word != "."]
    yield from enumerate(string, end + 1)


SOLVERS: dict[str, Callable[[list[str]], Iterator[tuple[int, str]]]] = {
    "mqar": solve_mqar,
    "copy": solve_copy,
    "selective_copy": solve_copy,
}


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_an_oracle_agrees_with_every_label(name: str, options: MemoryOptions, tmp_path: Path) -> None:
    task = answers_task(name, options)
    assert generate(task, tmp_path, 3, COUNTS)
    dataset = load(task, tmp_path)
    asked = task.options["pairs" if name == "mqar" else "symbols"]
    for part, statistics in dataset_statistics(dataset).items():
        for row in dataset[part]:
            words = task.decode(row["input_ids"]).split()
            answers = dict(SOLVERS[name](words))
            assert len(answers) == asked
            ids = {word: i for i, word in enumerate(task.words)}
            assert row["labels"] == [ids[answers[n]] if n in answers else IGNORED for n in range(len(words))]
            assert task.encode(" ".join(words)).tolist() == row["input_ids"]
            assert len(words) == task.info.max_seq_len
        assert statistics.answers == asked * len(dataset[part])
        assert label_summary(statistics) == f"{statistics.answers:,} answers, {asked} an example"
        assert statistics.classes == {}


def test_examples_have_the_published_forms() -> None:
    rng = np.random.default_rng(0)
    ids_BN, labels_BN = answers_task("mqar").draw(rng, 500, 1)
    assert (ids_BN.dtype, labels_BN.dtype, ids_BN.shape) == (np.uint8, np.int64, (500, 256))
    keys_BP, values_BP = ids_BN[:, :32:2], ids_BN[:, 1:32:2]
    assert (keys_BP.min(), keys_BP.max(), values_BP.min(), values_BP.max()) == (1, 31, 32, 63)
    for row in range(500):
        assert len(set(keys_BP[row])) == len(set(values_BP[row])) == 16
        # Every key comes once more and nothing else but filler; its value does not.
        assert sorted(ids_BN[row, 32:][ids_BN[row, 32:] > 0]) == sorted(keys_BP[row])
        assert not ids_BN[row, 33::2].any()
    string_BS = answers_task("copy").draw(rng, 9, 1)[0]
    assert np.array_equal(string_BS[:, :63], string_BS[:, 65:])
    assert np.array_equal(string_BS[:, 63:65], [[16, 17]] * 9)
    ids_BN, labels_BN = answers_task("selective_copy").draw(rng, 9, 1)
    assert np.array_equal(ids_BN[:, 239:], [[15] + [14] * 16] * 9)
    assert ((ids_BN[:, :239] < 14).sum(1) == 16).all()
    assert (labels_BN[:, 240:] >= 0).all()


def test_questions_follow_the_pairs_at_gaps_of_a_power_law() -> None:
    """One of two places is the first one with the probability of its weight; a key's place tells nothing."""
    task = answers_task("mqar", MemoryOptions(sequence_tokens=8, pairs=1, vocabulary=64))
    _, labels_BN = task.draw(np.random.default_rng(0), 20_000, 1)
    weights = np.arange(1, 4) ** -GAP_EXPONENT
    found = (labels_BN[:, 3::2] != IGNORED).mean(0)
    np.testing.assert_allclose(found, weights / weights.sum(), atol=4 * 0.5 / math.sqrt(20_000))
    ids_BN, labels_BN = answers_task("mqar", MemoryOptions(sequence_tokens=16, pairs=4)).draw(
        np.random.default_rng(1), 8_000, 1
    )
    # All places hold a question; each asks for each pair equally often.
    for place in range(8, 16, 2):
        pair = (ids_BN[:, :8:2] == ids_BN[:, place, None]).argmax(1)
        np.testing.assert_allclose(np.bincount(pair) / 8_000, [0.25] * 4, atol=4 * 0.44 / math.sqrt(8_000))


# Readers that lack something: they must be at chance, within four deviations of a binomial.

DRAWN = 4000


def naive_bayes(features_BF: NDArray[np.int64], labels_B: NDArray[np.int64], classes: int) -> float:
    """Accuracy on the second half of naive Bayes over tokens at their places, trained on the first."""
    half = len(labels_B) // 2
    scores = np.zeros((len(labels_B) - half, classes))
    for column in features_BF.T:
        counts = np.full((classes, int(column.max()) + 1), 0.1)
        np.add.at(counts, (labels_B[:half], column[:half]), 1)
        scores += np.log(counts / counts.sum(1, keepdims=True))[:, column[half:]].T
    return float(np.mean(scores.argmax(1) == labels_B[half:]))


@pytest.mark.parametrize(
    ("name", "options", "segment_tokens", "answers"),
    [
        ("mqar", MemoryOptions(sequence_tokens=64, pairs=8, vocabulary=32), 16, None),
        ("copy", MemoryOptions(sequence_tokens=32, symbols=15, vocabulary=8), 16, range(17, 32)),
        ("selective_copy", MemoryOptions(sequence_tokens=36, symbols=5, vocabulary=6), 6, range(31, 36)),
    ],
)
def test_the_segment_of_a_question_does_not_tell_the_answer(
    name: str, options: MemoryOptions, segment_tokens: int, answers: range | None
) -> None:
    task = answers_task(name, options)
    ids_BN, labels_BN = task.draw(np.random.default_rng(2), DRAWN, 1)
    for place in [17, 25, 33] if answers is None else list(answers)[::4]:
        rows = np.flatnonzero(labels_BN[:, place] != IGNORED)
        labels_B = labels_BN[rows, place]
        # Token place - 1 predicts the label, from its segment up to itself.
        first = (place - 1) // segment_tokens * segment_tokens
        seen = ids_BN[rows, first:place].astype(np.int64)
        values = np.unique(labels_B, return_inverse=True)[1]
        chance, half = 1 / (values.max() + 1), len(rows) - len(rows) // 2
        found = naive_bayes(seen, values, int(values.max()) + 1)
        assert found < chance + 4 * math.sqrt(chance * (1 - chance) / half), place
    # The same reader finds it where it stands: the string of copy is at fixed places.
    if name == "copy":
        assert naive_bayes(ids_BN[:, :17].astype(np.int64), labels_BN[:, 20], 6) > 0.99


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    def contents(place: str, seed: int, options: MemoryOptions | None = None) -> list[bytes]:
        task = answers_task("mqar", options)
        generate(task, tmp_path / place, seed, COUNTS)
        return [path.read_bytes() for path in task.sources(tmp_path / place)]

    first = contents("a", 0)
    assert contents("b", 0, MemoryOptions(pairs=16)) == first
    assert not set(contents("c", 1)) & set(first)
    assert not set(contents("d", 0, MemoryOptions(vocabulary=258))) & set(first)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mqar", {"pairs": 65}, "65 pairs and their questions take 260 tokens; sequence_tokens is 256"),
        ("mqar", {"sequence_tokens": 257}, "sequence_tokens must be even, not 257"),
        ("mqar", {"vocabulary": 33}, "has 15 keys, fewer than pairs 16; vocabulary must be at least 34"),
        ("mqar", {"symbols": 3}, "symbols: no setting of the task mqar; its settings are sequence_tokens, pairs, voc"),
        ("copy", {"symbols": 64}, "64 symbols, a separator and their copy take 129 tokens; sequence_tokens is 128"),
        ("copy", {"vocabulary": 3}, "vocabulary must be a whole number >= 4, not 3"),
        ("selective_copy", {"pairs": 3}, "pairs: no setting of the task selective_copy"),
    ],
)
def test_settings_without_an_example_are_refused(name: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        task_of(name, MemoryOptions(**options))


def test_texts_that_are_no_examples_are_refused() -> None:
    task = answers_task("selective_copy", MemoryOptions(sequence_tokens=5, symbols=2, vocabulary=4))
    assert task.encode("s0 s1 | . .").tolist() == [0, 1, 3, 2, 2]
    with pytest.raises(UserError, match=r"'s2' is no token of selective_copy_.*; they are s0 s1 \. \.\.\. \|"):
        task.encode("s0 s2 | . .")
    with pytest.raises(UserError, match="has 5 tokens with spaces between them, not 3"):
        task.encode("s0 s1 |")


def test_altered_archives_are_found(tmp_path: Path) -> None:
    task = answers_task("copy")
    generate(task, tmp_path, 0, COUNTS)
    path = tmp_path / "copy" / "test.npz"
    whole = dict(np.load(path))
    for altered in (whole["labels"] + 1, np.where(whole["labels"] < 0, -1, whole["labels"]), whole["labels"][::2]):
        np.savez(path, **{**whole, "labels": altered.astype(np.int16)})
        with pytest.raises(UserError, match=r"test\.npz: not the examples of copy"):
            load("copy", tmp_path)


def test_the_listing_and_the_examples_on_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = "--sequence_tokens 12 --pairs 2 --vocabulary 8 --num_train 9 --num_val 3 --num_test 3 --show 1"
    assert main(["data", "mqar", *settings.split(), "--data_dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\ntrain: 18 answers, 2 an example\n" in out
    shown = re.search(r"^(\d+):(\d) (\d+):(\d), 2 answers  \(12 tokens\)  (.+)$", out, re.MULTILINE)
    assert shown is not None
    words = shown[5].split()
    task = answers_task("mqar", MemoryOptions(sequence_tokens=12, pairs=2, vocabulary=8))
    assert {int(shown[1]): task.words[int(shown[2])], int(shown[3]): task.words[int(shown[4])]} == dict(
        solve_mqar(words)
    )
    assert main(["list", "tasks", "--data_dir", str(tmp_path)]) == 0
    assert re.search(r"^mqar +256 +tokens +50,000 / 1,000 / 2,000 +missing$", capsys.readouterr().out, re.MULTILINE)


def test_batches_hold_a_label_for_each_token(tmp_path: Path) -> None:
    task = answers_task("copy", MemoryOptions(sequence_tokens=13, symbols=6))
    generate(task, tmp_path, 0, COUNTS)
    reader = TokenReader(load(task, tmp_path)["train"].select([7, 2, 5]))
    examples = reader.__getitems__([2, 0])
    batch = Collator(8)(examples)
    assert (batch["labels"].dtype, batch["labels"].shape) == (torch.int64, (2, 16))
    for row, example in enumerate(examples):
        assert batch["labels"][row, :13].tolist() == example["labels"].tolist()
        assert batch["labels"][row, 13:].tolist() == [IGNORED] * 3
    # The labels of all examples, one after another.
    assert reader.labels.tolist() == np.concatenate([e["labels"] for e in reader.__getitems__([0, 1, 2])]).tolist()
