"""Stories: a reader of the English text answers every one, and readers that skip a step answer few."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.tasks import load
from rmaat.tasks.base import Counts
from rmaat.tasks.generate import generate
from rmaat.tasks.stories import (
    NOISE,
    OBJECTS,
    PERSONS,
    PLACES,
    SHORTEST_STORY,
    STORIES,
    TEMPLATES,
    VOCABULARY,
    WORDS,
    draw_stories,
)

CHANCE = 1 / 6

MOVE = re.compile(r"([A-Z]\w+) (?:went|walked|hurried|moved|ran) to the (\w+) \.")
TAKE = re.compile(r"([A-Z]\w+) (?:picked|lifted) up the (\w+) \.")
DROP = re.compile(r"([A-Z]\w+) (?:put|set) down the (\w+) \.")
QUESTION = re.compile(r"Where is (?:the )?(\w+) \?")


def sentences(text: str) -> list[str]:
    """The sentences of a story, each with its last mark."""
    return re.findall(r"[^.!?]*(?:\.\.\.|[.!?])", text)


def solve(text: str, latest_holder: bool = True) -> str | None:
    """The place that the text answers, None if it does not say; with `latest_holder` false the first holder has it for ever."""
    place_of: dict[str, str] = {}  # of persons and of objects nobody holds
    holder: dict[str, str] = {}
    first: dict[str, str] = {}
    for sentence in map(str.strip, sentences(text)):
        if found := MOVE.fullmatch(sentence):
            place_of[found[1]] = found[2]
        elif found := TAKE.fullmatch(sentence):
            person, thing = found[1], found[2]
            assert thing not in holder, "it is held already"
            if thing in place_of:
                lies = place_of.pop(thing)
                assert place_of.setdefault(person, lies) == lies, "the person is elsewhere"
            holder[thing] = person
            first.setdefault(thing, person)
        elif found := DROP.fullmatch(sentence):
            assert holder.pop(found[2]) == found[1], "another person holds it"
            place_of[found[2]] = place_of[found[1]]
    asked = QUESTION.search(text)
    assert asked is not None
    assert text.endswith(asked[0])
    if not latest_holder:
        return place_of.get(first[asked[1]])
    return place_of.get(holder.get(asked[1], asked[1]))


def drawn(count: int, tokens: int, facts: int, seed: int = 0) -> tuple[list[str], NDArray[np.int64]]:
    ids, labels = draw_stories(np.random.default_rng(seed), count, tokens, facts)
    assert ids.shape == (count, tokens)
    assert ids.dtype == np.int16
    return [STORIES.decode(row) for row in ids], labels


def accuracy(reader: Callable[[str], str | None], texts: list[str], labels: NDArray[np.int64]) -> float:
    return float(np.mean([reader(text) == PLACES[label] for text, label in zip(texts, labels, strict=True)]))


def last_place(text: str) -> str:
    return [word for word in text.split() if word in PLACES][-1]


def last_move(text: str) -> str:
    return MOVE.findall(text)[-1][1]


def last_move_before_touching(text: str) -> str:
    """The last move before the object was last touched, whoever moved."""
    thing = QUESTION.findall(text)[0]
    touched = max(text.rindex(f"up the {thing}"), text.rfind(f"down the {thing}"))
    before = MOVE.findall(text[:touched])
    return before[-1][1] if before else MOVE.findall(text)[0][1]


@pytest.mark.parametrize("facts", [1, 2])
@pytest.mark.parametrize(("tokens", "count"), [(0, 15), (1, 15), (64, 200), (512, 200), (65_536, 2)])
def test_an_exact_reader_agrees_with_every_label(facts: int, tokens: int, count: int) -> None:
    texts, labels = drawn(count, tokens if tokens > 1 else SHORTEST_STORY[facts] + tokens, facts)
    assert accuracy(solve, texts, labels) == 1


@pytest.mark.parametrize("facts", [1, 2])
def test_whole_sentences_and_each_place_once(facts: int) -> None:
    shapes = [
        re.compile(" ".join(f"(?:{'|'.join(WORDS[w[1:-1]])})" if w[0] == "{" else re.escape(w) for w in text.split()))
        for text in TEMPLATES
    ]
    for text in drawn(100, 256, facts)[0]:
        parts = [part.strip() for part in sentences(text)]
        assert " ".join(parts) == text
        assert all(any(shape.fullmatch(part) for shape in shapes) for part in parts)
        words = text.split()
        assert [words.count(place) for place in PLACES] == [1] * 6
        moves = MOVE.findall(text)
        events = len(moves) + len(TAKE.findall(text)) + len(DROP.findall(text))
        assert len({person for person, _ in moves}) >= 2
        assert (2 <= events <= 6) if facts == 1 else (3 <= events <= 8)


def test_noise_has_no_word_of_the_facts() -> None:
    slots = {word[1:-1] for text in NOISE for word in text.split() if word[0] == "{"}
    words = {word for slot in slots for word in WORDS[slot]} | {word for text in NOISE for word in text.split()}
    assert words.isdisjoint({*PERSONS, *PLACES, *OBJECTS})
    assert {len(text.split()) for text in NOISE} == set(range(1, 13))
    assert len(VOCABULARY) < 1000
    assert list(VOCABULARY) == sorted(set(VOCABULARY))


@pytest.mark.parametrize("facts", [1, 2])
def test_facts_lie_anywhere(facts: int) -> None:
    """Each eighth of the sentences holds an eighth of the facts, within four deviations."""
    eighths = []
    for text in drawn(500, 1024, facts)[0]:
        parts = [part.strip() for part in sentences(text)][:-1]
        of_facts = [i for i, part in enumerate(parts) if MOVE.match(part) or TAKE.match(part) or DROP.match(part)]
        eighths += [8 * i // len(parts) for i in of_facts]
    share = np.bincount(eighths, minlength=8) / len(eighths)
    assert np.abs(share - 1 / 8).max() < 4 * np.sqrt(7 / 64 / len(eighths))


@pytest.mark.parametrize("facts", [1, 2])
def test_neither_the_commonest_answer_nor_the_words_alone_tell(facts: int) -> None:
    """Naive Bayes on the counts of all words, learned from two thirds, stays within four deviations of chance."""
    ids, labels = draw_stories(np.random.default_rng(1), 3000, 64, facts)
    counts = np.stack([np.bincount(row, minlength=len(VOCABULARY)) for row in ids])
    (seen, unseen), (known, asked) = np.split(counts, [2000]), np.split(labels, [2000])
    totals = np.stack([seen[known == label].sum(0) for label in range(6)]) + 1.0
    scores = unseen @ np.log(totals / totals.sum(1, keepdims=True)).T + np.log(np.bincount(known))
    deviation = np.sqrt(CHANCE * (1 - CHANCE) / 1000)
    assert np.mean(scores.argmax(1) == asked) < CHANCE + 4 * deviation
    assert np.bincount(labels, minlength=6).max() / 3000 < CHANCE + 4 * deviation


@pytest.mark.parametrize("facts", [1, 2])
def test_the_last_segment_alone_does_not_tell(facts: int) -> None:
    """The last of 64 segments seldom holds a fact, or the last move would be the answer more often (below)."""
    texts, labels = drawn(400, 4096, facts)
    ends = [" ".join(text.split()[-64:]) for text in texts]
    assert accuracy(lambda end: last_move(end) if MOVE.search(end) else PLACES[0], ends, labels) < 0.26


def test_one_fact_needs_the_person_and_the_order() -> None:
    texts, labels = drawn(1000, 256, 1)
    assert accuracy(last_place, texts, labels) < 0.4
    assert accuracy(last_move, texts, labels) < 0.55
    first_move = [dict(reversed(MOVE.findall(text)))[QUESTION.findall(text)[0]] for text in texts]
    assert np.mean(np.array(first_move) == np.array(PLACES)[labels]) < 0.5


def test_two_facts_need_the_latest_holder() -> None:
    texts, labels = drawn(1000, 256, 2)
    for reader in (last_place, last_move, last_move_before_touching):
        assert accuracy(reader, texts, labels) < 0.5, reader.__name__
    assert accuracy(lambda text: solve(text, latest_holder=False), texts, labels) < 0.5


@pytest.mark.parametrize("facts", [1, 2])
def test_the_seed_alone_decides(facts: int) -> None:
    first, labels = draw_stories(np.random.default_rng(3), 4, 128, facts)
    again, same = draw_stories(np.random.default_rng(3), 4, 128, facts)
    assert first.tobytes() == again.tobytes()
    assert labels.tolist() == same.tolist()
    assert first.tobytes() != draw_stories(np.random.default_rng(4), 4, 128, facts)[0].tobytes()


def test_files_hold_stories_of_one_to_eight_segments(tmp_path: Path) -> None:
    counts = Counts(train=80, validation=10, test=10)
    for folder in (tmp_path / "a", tmp_path / "b"):
        assert generate(STORIES, folder, 5, counts)
    for name in STORIES.file_names:
        assert (tmp_path / "a" / "stories" / name).read_bytes() == (tmp_path / "b" / "stories" / name).read_bytes()
    dataset = load("stories", tmp_path / "a")
    assert tuple(map(len, dataset.values())) == (80, 10, 10)
    assert {len(ids) for ids in dataset["train"]["input_ids"]} == set(range(64, 513, 64))
    texts = [STORIES.decode(ids) for part in dataset.values() for ids in part["input_ids"]]
    assert len(set(texts)) == 100
    labels = np.concatenate([part["labels"] for part in dataset.values()])
    assert accuracy(solve, texts, labels) == 1


def test_encode_and_decode() -> None:
    text = "Mary went to the garden . ... Oh well ! Where is Mary ?"
    assert STORIES.decode(STORIES.encode(text)) == text
    assert STORIES.decode(STORIES.encode("Mary went to the garden. ... Oh well!\nWhere is Mary?")) == text
    assert STORIES.encode(text).dtype == np.int16
    with pytest.raises(UserError, match="the story is empty"):
        STORIES.encode(" ")
    with pytest.raises(UserError, match="'Zoe' is not one of the"):
        STORIES.encode("Zoe went to the garden .")


@pytest.mark.parametrize(
    ("tokens", "facts", "message"),
    [(31, 1, "needs 1 fact has at least 32 tokens, got 31"), (38, 2, "at least 39"), (64, 3, "must be 1 or 2, got 3")],
)
def test_stories_too_short_or_of_more_facts_are_refused(tokens: int, facts: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw_stories(np.random.default_rng(0), 1, tokens, facts)
