"""Stories in noise: persons move and carry objects, and a question asks for a place.

There are six places. A story is a sequence of N words and punctuation marks. Its facts stand in
order at random positions between noise: sentences that mention no person, object or place of the
facts. Every story names each place once, so that counting words does not help: a place to which
nobody moves has its own sentence ("The cellar echoed ."). The question stands at the end.

Axes: S sentences, N tokens, B stories.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.tasks.base import TaskInfo, TokenIds, token_dtype
from rmaat.tasks.memory import MemoryTask

Sentences = NDArray[np.int64]
"""Indices (S,) of sentences in the `Phrasebook`."""

PERSONS: Final = ("David", "John", "Laura", "Mary", "Peter", "Sarah")

PLACES: Final = ("cellar", "garden", "kitchen", "library", "market", "school")
"""The answers, in the order of their labels."""

OBJECTS: Final = ("apple", "book", "coin", "lamp", "ring", "umbrella")

WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    slot: tuple(words.split())
    for slot, words in {
        "person": " ".join(PERSONS),
        "place": " ".join(PLACES),
        "object": " ".join(OBJECTS),
        "went": "went walked hurried moved ran",
        "took": "picked lifted",
        "dropped": "put set",
        "echoed": "echoed gleamed darkened brightened closed opened",
        "folk": "baker farmer sailor teacher doctor painter fisherman postman miller singer tailor shepherd butcher nurse",
        "guest": "neighbour stranger visitor captain judge widow girl boy",
        "old": "old young tall cheerful tired clever shy proud",
        "sang": "laughed sang whistled slept waited sighed smiled worked danced",
        "quietly": "quietly happily alone again slowly outside",
        "greeted": "greeted thanked teased ignored admired warned remembered",
        "fox": "fox goat crow goose horse cat dog hare",
        "hid": "slept hid waited drank stared wandered",
        "nearby": "nearby outside again peacefully alone",
        "rain": "Rain Snow Night",
        "softly": "softly slowly early suddenly again",
        "sky": "sky sea river lake valley hill evening morning",
        "grey": "grey pale dark cold bright clear",
        "still": "still calm silent quiet lovely peaceful",
        "hush": "Hush Oh Well Alas Hurrah Listen Look Wait",
        "dear": "dear no well yes",
        "strange": "strange lovely odd quiet cold funny sad lucky",
        "answered": "answered complained noticed laughed slept cared",
        "today": "today yesterday later again",
        "mended": "mended sold painted cleaned found bought",
        "broken": "broken wooden rusty heavy yellow plain tiny",
        "chair": "chair kettle ladder basket bucket drum mirror broom wheel bottle",
        "supper": "breakfast lunch supper work",
        "weather": "weather harvest wedding news election storm festival moon",
        "winter": "winter spring summer autumn Sunday",
        "hills": "hills mountains forest moor woods",
        "bread": "bread soup coffee fish cheese milk tea",
        "salty": "salty cold expensive sweet thin bitter",
        "week": "week year month season",
        "letter": "letter parcel postcard telegram",
        "distant": "distant forgotten wealthy foreign former",
        "cousin": "cousin friend colleague uncle soldier",
        "train": "train bus ferry coach",
        "fog": "fog storm strike flood frost wind",
        "three": "Two Three Four Five",
        "sisters": "children sailors sisters strangers clerks",
        "chess": "cards chess dominoes marbles football",
        "seven": "two three four five six seven eight nine ten eleven twelve",
        "colder": "colder warmer windier drier wetter brighter",
        "station": "station bridge beach chapel mill lighthouse",
    }.items()
}
"""The words for each slot of a template; each word is one token."""

MOVE: Final = "{person} {went} to the {place} ."
TAKE: Final = "{person} {took} up the {object} ."
DROP: Final = "{person} {dropped} down the {object} ."
MENTION: Final = "The {place} {echoed} ."
QUESTIONS: Final = {1: "Where is {person} ?", 2: "Where is the {object} ?"}
"""The question, by the number of facts that the answer needs."""

NOISE: Final = (
    "...",
    "{hush} !",
    "Oh {dear} !",
    "How {strange} !",
    "{rain} fell {softly} .",
    "Nobody {answered} {today} .",
    "A {fox} {hid} {nearby} .",
    "{three} {sisters} played {chess} .",
    "The clock struck {seven} .",
    "The {folk} {greeted} the {guest} .",
    "The {old} {folk} {sang} {quietly} .",
    "The {sky} was {grey} and {still} .",
    "It was {colder} than last {winter} .",
    "The {guest} {went} to the {station} .",
    "The {folk} {took} up a {chair} .",
    "A {guest} {dropped} down a {chair} .",
    "The {folk} {mended} a {broken} {chair} {today} .",
    "A {letter} arrived from a {distant} {cousin} .",
    "After {supper} the {folk} talked about the {weather} .",
    "The {train} was late because of the {fog} .",
    "Every {winter} a {fox} came down from the {hills} .",
    "Nobody knew why the {folk} had painted the {broken} {chair} .",
    "The {folk} said that the {bread} was too {salty} this {week} .",
)
"""Templates of 1 to 12 tokens. Each length must occur, to fill any number of tokens."""

TEMPLATES: Final = (MOVE, TAKE, DROP, MENTION, *QUESTIONS.values(), *NOISE)


def _positions(template: str) -> list[tuple[str, ...]]:
    """Return the words for each position of a template."""
    return [WORDS[word[1:-1]] if word.startswith("{") else (word,) for word in template.split()]


VOCABULARY: Final = tuple(sorted({word for text in TEMPLATES for words in _positions(text) for word in words}))
"""All tokens; a token's id is its index."""

IDS: Final = {word: i for i, word in enumerate(VOCABULARY)}

DTYPE: Final = token_dtype(len(VOCABULARY))

LONGEST_NOISE: Final = max(len(text.split()) for text in NOISE)

SHORTEST_STORY: Final = {1: 32, 2: 39}
"""Fewest tokens, by the number of facts that the answer needs.

Two persons must move, and every place is named."""


class Phrasebook(NamedTuple):
    """All sentences of all templates, one after another."""

    ids: TokenIds
    """Ids (tokens of all sentences,) of `DTYPE`."""
    starts: NDArray[np.int64]
    """Index in `ids` of each sentence's first token (sentences,)."""
    lengths: NDArray[np.int64]
    """Tokens of each sentence (sentences,)."""
    first: NDArray[np.int64]
    """Index of each template's first sentence (templates,), in the order of `TEMPLATES`."""
    counts: NDArray[np.int64]
    """Sentences of each template (templates,)."""
    noise_of_length: dict[int, Sentences]
    """Noise sentences, by their length."""


@cache
def phrasebook() -> Phrasebook:
    """Return all sentences; they are made once."""
    tables = []
    for template in TEMPLATES:
        ids = [np.array([IDS[word] for word in words], DTYPE) for words in _positions(template)]
        tables.append(np.stack([axis.ravel() for axis in np.meshgrid(*ids, indexing="ij")], axis=1))
    counts = np.array([len(table) for table in tables])
    lengths = np.repeat([table.shape[1] for table in tables], counts)
    first = np.cumsum(counts) - counts
    noise = np.arange(first[-len(NOISE)], len(lengths))
    return Phrasebook(
        ids=np.concatenate([table.ravel() for table in tables]),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        first=first,
        counts=counts,
        noise_of_length={length: noise[lengths[noise] == length] for length in range(1, LONGEST_NOISE + 1)},
    )


def _sentence(rng: np.random.Generator, template: str, *choices: int | None) -> int:
    """Return the index of a template's sentence with these words; None draws a word at random."""
    sizes = [len(words) for words in _positions(template) if len(words) > 1]
    picked = [rng.integers(size) if choice is None else choice for choice, size in zip(choices, sizes, strict=True)]
    return int(phrasebook().first[TEMPLATES.index(template)]) + int(np.ravel_multi_index(picked, sizes))


class Script(NamedTuple):
    """The content of a story, without noise."""

    facts: list[int]
    """Sentences of the facts, in order."""
    unnamed: list[int]
    """Places that the facts do not name."""
    question: int
    """Sentence of the question."""
    answer: int
    """Place that answers it, a label."""


def one_fact(rng: np.random.Generator) -> Script:
    """Draw 2 to 6 moves of two or three persons; the answer is one person's latest place."""
    persons = rng.permutation(len(PERSONS))[: rng.integers(2, 4)]
    places = rng.permutation(len(PLACES)).tolist()
    while True:
        movers = rng.choice(persons, rng.integers(2, 7)).tolist()
        if len(set(movers)) > 1:
            break
    asked = int(rng.choice(sorted(set(movers))))
    moves = list(zip(movers, places[: len(movers)], strict=True))
    facts = [_sentence(rng, MOVE, person, None, place) for person, place in moves]
    return Script(facts, places[len(moves) :], _sentence(rng, QUESTIONS[1], asked), dict(moves)[asked])


ENDINGS: Final = ("first holder", "changed hands", "left behind")
"""The endings of the object in the question.

- first holder: with the only person who had it, or put down where that person is;
- changed hands: the same, after another person had it;
- left behind: put down by a person who then moved on."""


def two_facts(rng: np.random.Generator) -> Script:
    """Draw 3 to 8 facts on three persons and two objects; the answer is the place of one object.

    The endings are drawn first, equally likely. Without that, nine objects in ten would stay with
    their first holder.
    """
    ending = ENDINGS[rng.integers(len(ENDINGS))]
    while (script := _handling(rng, ending)) is None:
        pass
    return script


def _handling(rng: np.random.Generator, ending: str) -> Script | None:
    """Draw the facts of a two-fact story.

    Return None if fewer than two persons moved or no object has that ending.
    """
    persons = rng.permutation(len(PERSONS))[:3].tolist()
    objects = rng.permutation(len(OBJECTS))[:2].tolist()
    unnamed = rng.permutation(len(PLACES)).tolist()
    # Each person's place is known from a move, or from taking an object that was put down there.
    at: dict[int, int] = {}
    moved: set[int] = set()
    takers: dict[int, list[int]] = {thing: [] for thing in objects}
    lies: dict[int, int] = {}  # the place of each object that was put down
    facts: list[tuple[str, int, int]] = []
    for kind, which, mover in rng.random((rng.integers(3, 9), 3)).tolist():
        held = [thing for thing in objects if takers[thing] and thing not in lies]
        # An object can be taken by a person at its place, or by one whose place was not mentioned
        # yet.
        takes = [
            (TAKE, person, thing)
            for person in persons
            for thing in objects
            if thing not in held and (thing not in lies or at.get(person, lies[thing]) == lies[thing])
        ]
        handlings = takes + [(DROP, takers[thing][-1], thing) for thing in held if takers[thing][-1] in moved]
        if unnamed and (not handlings or kind < 0.5):
            person, place = persons[int(mover * len(persons))], unnamed.pop()
            at[person] = place
            moved.add(person)
            facts.append((MOVE, person, place))
        elif handlings:
            template, person, thing = handlings[int(which * len(handlings))]
            facts.append((template, person, thing))
            if template == DROP:
                lies[thing] = at[person]
                continue
            takers[thing].append(person)
            if thing in lies:
                at[person] = lies.pop(thing)
    answers = {}
    for thing in objects:
        # Skip a holder who took the object at its place and has not moved since: that answer needs
        # a third fact.
        if takers[thing] and (thing in lies or takers[thing][-1] in moved):
            last = takers[thing][-1]
            place = lies.get(thing, at[last])
            hands = "changed hands" if len(set(takers[thing])) > 1 else "first holder"
            if ending == ("left behind" if place != at[last] else hands):
                answers[thing] = place
    if not answers or len(moved) < 2:
        return None
    asked = list(answers)[rng.integers(len(answers))]
    sentences = [_sentence(rng, template, person, None, what) for template, person, what in facts]
    return Script(sentences, unnamed, _sentence(rng, QUESTIONS[2], asked), answers[asked])


def _noise(rng: np.random.Generator, tokens: int) -> Sentences:
    """Draw noise sentences (S,) of exactly `tokens` tokens in all; templates are equally likely."""
    book = phrasebook()
    templates = rng.integers(len(TEMPLATES) - len(NOISE), len(TEMPLATES), size=tokens)
    drawn = book.first[templates] + (rng.random(tokens) * book.counts[templates]).astype(np.int64)
    # Take as many whole sentences as fit, then one sentence of exactly the remaining length.
    ends = np.cumsum(book.lengths[drawn])
    whole = drawn[ends <= tokens]
    rest = tokens - int(book.lengths[whole].sum())
    if rest:
        whole = np.append(whole, rng.choice(book.noise_of_length[rest]))
    # Shuffle, or the sentence that fills the rest would always be the last.
    return rng.permutation(whole)


def _scattered(rng: np.random.Generator, ordered: Sequence[int] | Sentences, others: Sentences) -> Sentences:
    """Merge two sequences: `ordered` at random positions among `others`, each in its own order."""
    chosen = np.zeros(len(ordered) + len(others), bool)
    chosen[rng.choice(len(chosen), len(ordered), replace=False)] = True
    merged = np.empty(len(chosen), np.int64)
    merged[chosen], merged[~chosen] = ordered, others
    return merged


def _tokens(sentences: Sentences) -> TokenIds:
    """Return the ids (N,) of sentences (S,)."""
    book = phrasebook()
    lengths = book.lengths[sentences]
    # The index of each token in the phrasebook is the start of its sentence plus its index within
    # it.
    ends = np.cumsum(lengths)
    return book.ids[np.arange(ends[-1]) + np.repeat(book.starts[sentences] - (ends - lengths), lengths)]


def draw_stories(rng: np.random.Generator, count: int, tokens: int, facts: int) -> tuple[TokenIds, NDArray[np.int64]]:
    """Draw stories of exactly `tokens` tokens whose answer needs one or two facts.

    Returns:
        Ids (count, tokens) of `DTYPE`, and labels (count,), indices of `PLACES`.

    Raises:
        UserError: if `facts` is another number, or there are fewer tokens than `SHORTEST_STORY`.
    """
    if facts not in SHORTEST_STORY:
        raise UserError(f"story_facts must be 1 or 2, got {facts}")
    if tokens < SHORTEST_STORY[facts]:
        raise UserError(
            f"a story that needs {facts} fact{'s' * (facts > 1)} has at least {SHORTEST_STORY[facts]} tokens, got {tokens}"
        )
    draw_script = one_fact if facts == 1 else two_facts
    lengths = phrasebook().lengths
    ids_BN = np.empty((count, tokens), DTYPE)
    labels_B = np.empty(count, np.int64)
    for i in range(count):
        room = -1
        while room < 0:  # a short story has no room for many facts
            script = draw_script(rng)
            mentions = [_sentence(rng, MENTION, place, None) for place in script.unnamed]
            room = tokens - int(lengths[[*script.facts, *mentions, script.question]].sum())
        naming = _scattered(rng, script.facts, np.array(mentions, np.int64))
        ids_BN[i] = _tokens(np.append(_scattered(rng, naming, _noise(rng, room)), script.question))
        labels_B[i] = script.answer
    return ids_BN, labels_B


class Stories(MemoryTask):
    """Stories of 1 to `story_tokens` / `segment_tokens` segments that need `story_facts` facts."""

    name = "stories"
    available: ClassVar = {
        "story_tokens": 512,
        "story_facts": 1,
        "segment_tokens": 64,
    }

    def describe(self) -> TaskInfo:
        """Return the task's description.

        Raises:
            UserError: if story_tokens is not whole segments, or a segment is shorter than the
                shortest story.
        """
        tokens, segment_tokens = self.options["story_tokens"], self.options["segment_tokens"]
        least = SHORTEST_STORY[self.options["story_facts"]]
        if segment_tokens < least:
            raise UserError(f"segment_tokens {segment_tokens} is shorter than the shortest story; at least {least}")
        if tokens % segment_tokens:
            raise UserError(f"story_tokens {tokens} is not whole segments of segment_tokens {segment_tokens}")
        return TaskInfo(
            name=self.name,
            summary="where is a person or an object of a story, its few facts far apart in noise",
            kind="memory",
            vocab_size=len(VOCABULARY),
            label_names=PLACES,
            max_seq_len=tokens,
            sizes=(100_000, 2_000, 2_000),
            source=f"generated by `{self.command}`",
            generated=True,
            segment_tokens=segment_tokens,
        )

    @property
    def segments(self) -> range:
        """Numbers of segments, 1 to those of the longest story."""
        return range(1, self.options["story_tokens"] // self.options["segment_tokens"] + 1)

    def draw(self, rng: np.random.Generator, count: int, segments: int) -> tuple[TokenIds, NDArray[np.int64]]:
        """Draw ids (B, N) and labels (B,) of `segments` segments; see `MemoryTask.draw`."""
        if segments < 1:
            raise UserError(f"a story has at least 1 segment, not {segments}")
        return draw_stories(rng, count, self.length(segments), self.options["story_facts"])

    def encode(self, text: str) -> TokenIds:
        """Return the ids (N,) of a text, in which punctuation may follow a word without a space.

        Raises:
            UserError: if the text is empty or has a word that is not in the vocabulary.
        """
        words = re.findall(r"\w+|\.\.\.|[^\w\s]", text)
        if not words:
            raise UserError("the story is empty; at least one word is needed")
        unknown = next((word for word in words if word not in IDS), None)
        if unknown is not None:
            raise UserError(
                f"'{unknown[:40]}' is not one of the {len(IDS)} words of stories (rmaat.tasks.stories.VOCABULARY)"
            )
        return np.array([IDS[word] for word in words], DTYPE)

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        """Return the text of ids (N,), with one space between tokens."""
        return " ".join(VOCABULARY[i] for i in ids)


STORIES = Stories()
