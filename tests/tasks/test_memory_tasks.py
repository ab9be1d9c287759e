"""recall, remember, rewrite: solved exactly from their text, and not by readers that lack what memory would carry."""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.tasks import TASKS, load, task_of
from rmaat.tasks.base import Counts
from rmaat.tasks.generate import generate
from rmaat.tasks.memory import MemoryTask
from rmaat.tasks.options import MemoryOptions
from rmaat.tasks.retrieval import distinct
from rmaat.training.config import RunConfig
from rmaat.training.data import RunData

COUNTS = Counts(train=600, validation=50, test=50)

VARIANTS = [
    ("recall", MemoryOptions()),
    ("recall", MemoryOptions(distance=4, segment_tokens=3)),
    ("recall", MemoryOptions(distance=5, segment_tokens=3, symbol_segments=2)),
    ("remember", MemoryOptions()),
    ("remember", MemoryOptions(pairs=16)),
    ("remember", MemoryOptions(pairs=20, key_size=2, value_size=3, filler=5)),
    ("rewrite", MemoryOptions()),
    ("rewrite", MemoryOptions(pairs=40, key_size=3, value_size=2, filler=1)),
]


def memory_task(name: str, options: MemoryOptions | None = None) -> MemoryTask:
    task = task_of(name, options)
    assert isinstance(task, MemoryTask)
    return task


def solve_recall(text: str) -> str:
    (symbol,) = re.fullmatch("[a-p]*([0-7])[a-p]*", "".join(text.split())).groups()
    assert len(set(map(len, text.split()))) == 1
    return symbol


def pairs_of(text: str) -> tuple[list[tuple[str, str]], str]:
    """Key and value of each segment, and the key in the last one."""
    *segments, last = text.split()
    assert len({len(segment) for segment in segments}) == 1
    pairs = [re.fullmatch("[A-P]*([a-p]+):([a-p]+);[A-P]*", segment).groups() for segment in segments]
    return pairs, re.fullmatch(r"[A-P]*([a-p]+)\?", last)[1]


def solve_remember(text: str) -> str:
    pairs, asked = pairs_of(text)
    (value,) = (value for key, value in pairs if key == asked)
    assert len(dict(pairs)) == len(pairs)
    return value


def solve_rewrite(text: str) -> str:
    pairs, asked = pairs_of(text)
    assert len(dict(pairs)) <= math.ceil(len(pairs) / 2)
    return dict(pairs)[asked]


SOLVERS: dict[str, Callable[[str], str]] = {
    "recall": solve_recall,
    "remember": solve_remember,
    "rewrite": solve_rewrite,
}


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_an_exact_solver_agrees_with_every_label(name: str, options: MemoryOptions, tmp_path: Path) -> None:
    task = memory_task(name, options)
    done: list[int] = []
    assert generate(task, tmp_path, 3, COUNTS, progress=done.append)
    assert sum(done) == COUNTS.total()
    dataset = load(task, tmp_path)
    numbers = set()
    for row in itertools.chain(*dataset.values()):
        text = task.decode(row["input_ids"])
        assert task.info.label_names[row["labels"]] == SOLVERS[name](text)
        assert task.encode(text).tolist() == row["input_ids"]
        assert {len(segment) for segment in text.split()[:-1]} <= {task.info.segment_tokens}
        numbers.add(len(text.split()))
    assert numbers == set(task.segments)
    longest = max(map(len, dataset["train"]["input_ids"]))
    assert 0 <= task.info.max_seq_len - longest < task.info.segment_tokens


@pytest.mark.parametrize(
    ("name", "options", "segments"),
    [
        ("recall", None, 32768),
        ("remember", MemoryOptions(key_size=4), 32768),
        ("remember", MemoryOptions(pairs=3), 17),
        ("rewrite", MemoryOptions(filler=28), 32768),
    ],
)
def test_examples_far_longer_than_those_of_training(name: str, options: MemoryOptions | None, segments: int) -> None:
    task = memory_task(name, options)
    ids_BN, labels_B = task.draw(np.random.default_rng(0), 2, segments)
    assert (ids_BN.dtype, labels_B.dtype) == (np.uint8, np.int64)
    assert ids_BN.shape == (2, task.length(segments))
    for ids_N, label in zip(ids_BN, labels_B, strict=True):
        text = task.decode(ids_N)
        assert len(text.split()) == segments
        assert SOLVERS[name](text) == task.info.label_names[label]


@pytest.mark.parametrize("symbol_segments", [1, 2, 4])
def test_the_marked_symbol_is_anywhere_in_the_first_segments(symbol_segments: int) -> None:
    options = MemoryOptions(distance=7, segment_tokens=3, symbol_segments=symbol_segments)
    task = memory_task("recall", options)
    for segments in (1, 3, 8, 40):
        ids_BN, _ = task.draw(np.random.default_rng(0), 2000, segments)
        counts_N = (ids_BN >= 16).sum(0)
        allowed = 3 * min(segments, symbol_segments)
        assert counts_N[allowed:].sum() == 0
        # Six standard deviations of a binomial count.
        mean = 2000 / allowed
        assert np.abs(counts_N[:allowed] - mean).max() <= 6 * mean**0.5


def test_labels_are_values_in_base_16() -> None:
    words = tuple(map("".join, itertools.product("abcdefghijklmnop", repeat=2)))
    assert memory_task("remember", MemoryOptions(value_size=2)).info.label_names == words
    assert len(memory_task("rewrite", MemoryOptions(value_size=3)).info.label_names) == 4096


def test_text_and_ids() -> None:
    remember = memory_task("remember", MemoryOptions(filler=1))
    assert remember.encode("Aa:p;\nb:c;P Bb?").tolist() == [19, 0, 16, 15, 17, 1, 16, 2, 17, 34, 20, 1, 18]
    assert memory_task("recall", MemoryOptions(segment_tokens=3)).encode("a7p bcd").tolist() == [0, 23, 15, 1, 2, 3]
    for text, word in (
        ("", "has 6 symbols, or 4 more for each further segment; this text has 0"),
        ("a:b; a", "this text has 5"),
        ("a:b; A!", "'!' is no symbol of remember; allowed: a-p, : ; ?"),
        ("a?", "this text has 2"),
    ):
        with pytest.raises(UserError, match=re.escape(word)):
            memory_task("remember").encode(text)


# Readers that lack something: their accuracy must be that of guessing, within four deviations of a binomial.

DRAWN = 6000


def bound(chance: float, count: int) -> float:
    return chance + 4 * math.sqrt(chance * (1 - chance) / count)


def features_accuracy(features: Sequence[NDArray[np.int64]], labels: NDArray[np.int64], classes: int) -> float:
    """Test accuracy of naive Bayes on tokens (B, N) seen as counts: the first half is for training."""
    ids_BN, half = np.stack(features), len(labels) // 2
    counts = np.stack([np.bincount(ids, minlength=ids_BN.max() + 1) for ids in ids_BN])
    of_class = np.stack([counts[:half][labels[:half] == label].sum(axis=0) for label in range(classes)]) + 1.0
    scores = counts[half:] @ np.log(of_class / of_class.sum(axis=1, keepdims=True)).T
    return float(np.mean(scores.argmax(axis=1) == labels[half:]))


@pytest.mark.parametrize(
    ("name", "options", "segments"),
    [("recall", None, 8), ("remember", None, 11), ("rewrite", None, 11), ("rewrite", MemoryOptions(filler=4), 3)],
)
def test_neither_the_last_segment_nor_the_commonest_answer_tells(
    name: str, options: MemoryOptions | None, segments: int
) -> None:
    task = memory_task(name, options)
    ids_BN, labels_B = task.draw(np.random.default_rng(1), DRAWN, segments)
    classes = len(task.info.label_names)
    last_BN = ids_BN[:, (segments - 1) * task.info.segment_tokens :]
    # A token at another place is another feature, so that this reader knows the order of the segment.
    placed_BN = last_BN + 64 * np.arange(last_BN.shape[1])
    limit = bound(1 / classes, DRAWN // 2)
    assert features_accuracy(placed_BN, labels_B, classes) < limit
    assert Counter(labels_B.tolist()).most_common(1)[0][1] / DRAWN < bound(1 / classes, DRAWN)
    # The same reader finds the answer where it stands.
    if name == "recall":
        assert features_accuracy(ids_BN[:, : task.info.segment_tokens], labels_B, classes) > 0.99


@pytest.mark.parametrize("name", ["remember", "rewrite"])
@pytest.mark.parametrize("pairs", [4, 10])
def test_the_bag_of_symbols_does_not_tell(name: str, pairs: int) -> None:
    task = memory_task(name)
    ids_BN, labels_B = task.draw(np.random.default_rng(2), DRAWN, pairs + 1)
    values_BP = ids_BN[:, 2:-2:4]
    counts = np.stack([np.bincount(values, minlength=16) for values in values_BP])
    # Values do not depend on keys: who knows all values but not whose they are does best with the commonest of them.
    chance = float(np.mean(counts.max(axis=1))) / pairs
    assert np.mean(counts.argmax(axis=1) == labels_B) < bound(chance, DRAWN)
    assert features_accuracy(ids_BN.astype(np.int64), labels_B, 16) < bound(chance, DRAWN // 2)
    # Nor does a place: each of remember's pairs is asked for equally often.
    if name == "remember":
        for place in range(pairs):
            assert np.mean(values_BP[:, place] == labels_B) < bound(1 / pairs + (1 - 1 / pairs) / 16, DRAWN)


def test_every_key_of_rewrite_is_asked_for_equally_often() -> None:
    task = memory_task("rewrite")
    ids_BN, _ = task.draw(np.random.default_rng(5), DRAWN, 11)
    keys_BP, asked_B = ids_BN[:, :-2:4], ids_BN[:, -2]
    chance = np.mean([1 / len(set(keys)) for keys in keys_BP.tolist()])
    assert abs(np.mean(keys_BP[:, -1] == asked_B) - chance) < bound(chance, DRAWN) - chance


def test_most_answers_of_rewrite_were_overwritten_before() -> None:
    task = memory_task("rewrite")
    ids_BN, labels_B = task.draw(np.random.default_rng(3), 2000, 11)
    texts = [task.decode(ids_N) for ids_N in ids_BN]
    first = [dict(reversed(pairs))[asked] for pairs, asked in map(pairs_of, texts)]
    several = [sum(key == asked for key, _ in pairs) > 1 for pairs, asked in map(pairs_of, texts)]
    assert np.mean(several) > 0.5
    # Who keeps the oldest value is right where there is but one, and by chance where the newest is the same.
    right = np.array(first) == np.array(task.info.label_names)[labels_B]
    assert np.mean(right) < bound(1 - np.mean(several) * 15 / 16, 2000) < 0.6


@pytest.mark.parametrize(("drawn", "size"), [(3, 5), (2, 9), (3, 13), (1, 40)])
def test_distinct_numbers_are_uniform(drawn: int, size: int) -> None:
    """Every ordered choice is equally probable, by a chi-square test; both ways of drawing are met."""
    count = 100_000
    rows = distinct(np.random.default_rng(4), count, drawn, size)
    found = Counter(map(tuple, rows.tolist()))
    choices = list(itertools.permutations(range(size), drawn))
    assert set(found) <= set(choices)
    expected = count / len(choices)
    square = sum((found[choice] - expected) ** 2 for choice in choices) / expected
    assert abs(square - (len(choices) - 1)) < 5 * math.sqrt(2 * (len(choices) - 1))


def test_bytes_follow_from_seed_counts_and_settings(tmp_path: Path) -> None:
    def contents(place: str, seed: int, counts: Counts, options: MemoryOptions | None = None) -> list[bytes]:
        task = memory_task("rewrite", options)
        generate(task, tmp_path / place, seed, counts)
        return [path.read_bytes() for path in task.sources(tmp_path / place)]

    first = contents("a", 0, COUNTS)
    assert contents("b", 0, COUNTS, MemoryOptions(pairs=10)) == first
    assert not set(contents("c", 1, COUNTS)) & set(first)
    assert not set(contents("d", 0, COUNTS, MemoryOptions(filler=1))) & set(first)
    fewer = contents("e", 0, Counts(5, 50, 7))
    assert (fewer[0] == first[0], fewer[1] == first[1]) == (False, True)


def test_variants_lie_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "data",
        "remember",
        "--data_dir",
        str(tmp_path),
        "--num_train",
        "30",
        "--num_val",
        "5",
        "--num_test",
        "5",
    ]
    variant = ["--pairs", "50", "--key_size", "2"]
    assert main(command) == 0
    assert main([*command, *variant, "--show", "2"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^[a-p]  \([\d,]+ tokens\)  [a-p]{2}:[a-p]; ", out, re.MULTILINE)
    assert {path.name for path in tmp_path.glob("rem*")} == {"remember", "remember_pairs50_key_size2"}
    settings = json.loads((tmp_path / "remember_pairs50_key_size2" / "settings.json").read_text())
    assert settings["options"] == {"pairs": 50, "key_size": 2, "value_size": 1, "filler": 0}
    tasks = [task_of("remember"), task_of("remember", MemoryOptions(pairs=50, key_size=2))]
    longest = [max(map(len, load(task, tmp_path)["train"]["input_ids"])) for task in tasks]
    assert longest[0] <= 42 < longest[1]
    (tmp_path / "remember_pairs50_key_size2" / "test.npz").write_bytes(b"")
    assert main([*command[:4], *variant]) == 2
    again = r"damaged .* `rmaat data remember --pairs 50 --key_size 2 --data_dir .* --num_test 5 --overwrite true`"
    assert re.search(again, capsys.readouterr().err)


def test_altered_archives_are_told(tmp_path: Path) -> None:
    task = memory_task("recall")
    generate(task, tmp_path, 0, COUNTS)
    path = tmp_path / "recall" / "test.npz"
    whole = dict(np.load(path))
    for name, altered in (
        ("ids", whole["ids"] + 24),
        ("ids", whole["ids"][1:]),
        ("ids", whole["ids"].astype(np.int64)),
        ("labels", whole["labels"] + 8),
        ("labels", whole["labels"][1:]),
        ("lengths", -whole["lengths"]),
    ):
        np.savez(path, **{**whole, name: altered})
        with pytest.raises(
            UserError, match=r"test\.npz: not the examples of recall; make it again with `rmaat data rec"
        ):
            load("recall", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("data remember --pairs 17", "17 pairs needs as many distinct keys, but key_size 1 gives 16; raise key_size"),
        ("data rewrite --pairs 0", "pairs must be a whole number >= 1, not 0"),
        ("data remember --value_size 4", "value_size must be a whole number from 1 to 3, not 4"),
        (
            "data recall --pairs 3",
            "pairs: no setting of the task recall; its settings are distance, segment_tokens, sy",
        ),
        ("data recall --distance 4 --symbol_segments 2", "5 segments, which is no multiple of symbol_segments 2"),
        ("data imdb --distance 3", "distance: no setting of the task imdb; it has none"),
        ("train --dataset listops --pairs 3", "pairs: no setting of the task listops"),
        (
            "train --dataset remember --max_seq_len 44 --num_segments 4",
            "the segments of remember have 4 tokens, those of the model 11; set max_seq_len: 44 and num_segments: 11",
        ),
        (
            "train --dataset remember --max_seq_len 50 --num_segments 5",
            "those of the model 10; set max_seq_len: 44 and num_segments: 11",
        ),
        (
            "train --dataset recall --max_seq_len 256 --num_segments 8",
            "truncates the question: recall has up to 16 segments of 32 tokens; set max_seq_len: 512 and num_segments: 16",
        ),
        (
            "train --dataset recall --symbol_segments 4 --max_seq_len 512 --num_segments 16",
            "the segments of recall have 128 tokens, those of the model 32; set max_seq_len: 512 and num_segments: 4",
        ),
        (
            "train --dataset remember --model transformer --max_seq_len 40",
            "truncates the question: remember has up to 11 segments of 4 tokens; set max_seq_len: 44\n",
        ),
        (
            "train --dataset remember --pairs 50 --key_size 2 --max_seq_len 255 --num_segments 51",
            "make it with `rmaat data remember --pairs 50 --key_size 2 --data_dir ",
        ),
    ],
)
def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, word: str) -> None:
    place = ["--output_dir", str(tmp_path / "run")] if arguments.startswith("train") else []
    assert main([*arguments.split(), "--data_dir", str(tmp_path), *place]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("rmaat: error: ")
    assert captured.err.count("\n") == 1
    assert word in captured.err


def test_no_examples_of_impossible_lengths() -> None:
    rng = np.random.default_rng(0)
    for name, segments, word in (
        ("recall", 0, "at least 1 segment, not 0"),
        ("rewrite", 1, "at least 1 pair, which is 2 segments, not 1"),
        ("remember", 18, "17 pairs needs as many distinct keys"),
    ):
        with pytest.raises(UserError, match=word):
            memory_task(name).draw(rng, 1, segments)


def test_one_segment_may_hold_everything() -> None:
    RunData.of(RunConfig.resolved({"model": "transformer", "dataset": "recall", "max_seq_len": 600}))


def test_a_run_trains_tests_and_predicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data_dir", str(tmp_path)]
    variant = ["--pairs", "3", "--filler", "2"]
    assert main(["data", "rewrite", *data, *variant, "--num_train", "64", "--num_val", "9", "--num_test", "9"]) == 0
    small = (
        "--max_seq_len 24 --num_segments 4 --hidden_size 16 --num_hidden_layers 1 --num_attention_heads 2 "
        "--intermediate_size 16 --max_steps 2 --eval_steps 2 --per_device_train_batch_size 16"
    )
    run = tmp_path / "run"
    assert main(["train", "--dataset", "rewrite", *data, *variant, *small.split(), "--output_dir", str(run)]) == 0
    assert json.loads((run / "metrics.json").read_text())["generator_seed"] == 0
    assert main(["evaluate", "--model", str(run)]) == 0
    (tmp_path / "text").write_text("AB a:b;  a:c;CD\nEF a?\n")
    capsys.readouterr()
    assert main(["predict", "--model", str(run), str(tmp_path / "text")]) == 0
    assert capsys.readouterr().out.split("\t")[1] in TASKS["rewrite"].info.label_names
