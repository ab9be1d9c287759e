"""Prompts for language models with a limited cache: numbers hidden in a text, or the text itself.

This module does not import torch.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rmaat.errors import UserError

CACHES = ("full", "streaming", "keydiff", "snapkv", "nestedkv", "zeromerge")
"""Names of the caches that are compared: that of transformers, and those of `rmaat.cache`."""


@dataclass(frozen=True)
class ContextTask:
    """A kind of prompt, and the answer that it needs.

    Attributes:
        name: its name.
        summary: one line for the help.
        needles: sentences with a number in the text; 0 means that the text's next tokens are asked for.
        later: the question is a second turn, so the caches are reduced before it is known.
    """

    name: str
    summary: str
    needles: int = 0
    later: bool = False


TASKS = {
    task.name: task
    for task in (
        ContextTask("needle", "a sentence with a number lies in a text, and the question follows", 1),
        ContextTask("needle_later", "the same, but the caches are reduced before the question", 1, later=True),
        ContextTask("needles_later", "the same with four numbers, of which one is asked for", 4, later=True),
        ContextTask("text", "the next tokens of a text, one by one"),
    )
}

CITIES = ("Lisbon", "Oslo", "Vienna", "Cairo", "Lima", "Dublin", "Prague", "Tokyo", "Riga")
NEEDLE = " The secret number of {city} is {number}."
QUESTION = "\n\nWhat is the secret number of {city}?"
ANSWER = "The secret number of {city} is"

CHAT_SIGN = "<|im_start|>"
CHAT = (f"{CHAT_SIGN}user\n", f"<|im_end|>\n{CHAT_SIGN}assistant\n")
"""Signs before the text and between question and answer, for a model that knows the first."""

PLAIN = ("", "\n")

CHARACTERS_PER_TOKEN = 8
"""More characters than a token has on average, so that a passage is long enough."""


@dataclass(frozen=True)
class Prompt:
    """The ids of the turns of a prompt, and of the answer."""

    turns: list[list[int]]
    answer: list[int]


def prompt_of(
    task: ContextTask,
    text: str,
    length: int,
    depth: float,
    tokenizer: Any,
    draw: random.Random,
    answer_tokens: int,
) -> Prompt:
    """Return a prompt of a task from a random place of a text.

    Args:
        task: the task.
        text: the text.
        length: tokens of all turns.
        depth: the place of the number that is asked for: 0 is the beginning of the passage, 1 its end.
        tokenizer: of the model.
        draw: the source of all draws.
        answer_tokens: tokens of an answer without needles.

    Raises:
        UserError: if the text has fewer tokens, or the length is below that of the question.
    """

    def encoded(words: str) -> list[int]:
        ids: list[int] = tokenizer(words, add_special_tokens=False)["input_ids"]
        return ids

    if not task.needles:
        ids = passage(text, length + answer_tokens, tokenizer, draw)
        return Prompt([ids[:length]], ids[length:])
    before, between = CHAT if CHAT_SIGN in tokenizer.get_vocab() else PLAIN
    cities = draw.sample(CITIES, task.needles)
    numbers = [str(draw.randrange(10_000, 100_000)) for _ in cities]
    needles = [encoded(NEEDLE.format(city=city, number=n)) for city, n in zip(cities, numbers, strict=True)]
    head = encoded(before)
    tail = encoded(QUESTION.format(city=cities[0]) + between + ANSWER.format(city=cities[0]))
    room = length - len(head) - len(tail) - sum(map(len, needles))
    if room < 1:
        raise UserError(f"a prompt of {length} tokens has no room for the text; choose longer --lengths")
    hay = passage(text, room, tokenizer, draw)
    depths = [depth, *(draw.random() for _ in needles[1:])]
    places = [_after_sentence(hay, round(depth * len(hay)), tokenizer) for depth in depths]
    context = list(hay)
    for place, needle in sorted(zip(places, needles, strict=True), reverse=True):
        context[place:place] = needle
    turns = [head + context, tail] if task.later else [head + context + tail]
    return Prompt(turns, encoded(f" {numbers[0]}"))


def passage(text: str, tokens: int, tokenizer: Any, draw: random.Random) -> list[int]:
    """Return that many ids from a random place of a text."""
    size = CHARACTERS_PER_TOKEN * tokens
    start = draw.randrange(max(len(text) - size, 1))
    ids: list[int] = tokenizer(text[start : start + size], add_special_tokens=False)["input_ids"]
    if len(ids) < tokens:
        raise UserError(f"a text has fewer than {tokens:,} tokens; choose shorter --lengths, or longer texts")
    return ids[:tokens]


def _after_sentence(ids: Sequence[int], place: int, tokenizer: Any) -> int:
    """Return the place behind the last full stop before a place inside, or the place if there is none."""
    if place < len(ids):
        for index in range(place - 1, -1, -1):
            if tokenizer.decode(ids[index]).endswith("."):
                return index + 1
    return place
