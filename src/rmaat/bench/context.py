"""Language models at long contexts: caches of a fixed budget, and models that read any length.

Axes: B = 1 prompt, A tokens of an answer, V ids of the vocabulary.
"""

import gzip
import lzma
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Cache, DynamicCache

from rmaat.bench.context_prompts import ContextTask, Prompt, prompt_of
from rmaat.bench.smollm2 import load_smollm2
from rmaat.cache import (
    BudgetCache,
    KeyDiffCache,
    NestedKVCache,
    SnapKVCache,
    StreamingCache,
    ZeroMergeCache,
    attach,
)
from rmaat.cache.shared_prompt import SharedPrompt
from rmaat.errors import UserError
from rmaat.machine.memory import memory_of
from rmaat.training.language import open_language_run, score_texts

FULL = "full"

MAKE: dict[str, Callable[[int], Cache]] = {
    FULL: lambda budget: DynamicCache(),
    "streaming": StreamingCache,
    "keydiff": KeyDiffCache,
    "snapkv": SnapKVCache,
    "nestedkv": NestedKVCache,
    "zeromerge": ZeroMergeCache,
}
"""A new cache of a budget, by the names of `context_prompts.CACHES`."""


@dataclass(frozen=True)
class Budget:
    """A cache and the entries that it may hold: a share of the prompt's tokens."""

    cache: str
    share: float

    def make(self, length: int) -> Cache:
        """Return a new cache for a prompt of that many tokens.

        Raises:
            UserError: if it needs more entries.
        """
        return MAKE[self.cache](round(self.share * length))


def budgets_of(caches: Sequence[str], shares: Sequence[float]) -> list[Budget]:
    """Return each cache with each share; the full cache has none."""
    return [Budget(name, share) for name in caches for share in ([1.0] if name == FULL else shares)]


@dataclass(frozen=True)
class ContextScore:
    """The result of one cache for one task and length of prompt.

    Attributes:
        task, length, cache, share: names of task and cache, tokens of a prompt, and the budget as a share
            of them.
        accuracy: share of the answers whose tokens are all right; None if there is no number to find.
        accuracy_by_depth: the same for each depth, from 0 to 1.
        loss: mean negative log-likelihood of a token of the answer, in nats.
        held_bytes: of all layers after the answer.
        tokens_per_second: while decoding the answer, the median over prompts.
    """

    task: str
    length: int
    cache: str
    share: float
    accuracy: float | None
    accuracy_by_depth: list[float]
    loss: float
    held_bytes: int
    tokens_per_second: float


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model of transformers that is attached to `rmaat.cache`, and its tokenizer."""

    name: str
    model: Any
    tokenizer: Any


def load_language_model(name: str | None, dtype: str, device: str) -> LanguageModel:
    """Return a model of that name or folder; None is SmolLM2.

    Raises:
        UserError: if it is not on this machine, or `attach` refuses it.
    """
    kind = getattr(torch, dtype)
    if name is None:
        model, tokenizer = load_smollm2(kind, device)
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(name, dtype=kind, local_files_only=True)
        except (OSError, ValueError) as error:
            raise UserError(
                f"--model '{name}' is neither a folder with a language model and its tokenizer nor in the Hugging "
                f"Face cache of this machine; fetch it with `hf download {name}`"
            ) from error
        model = model.to(device).eval()
    attach(model)
    return LanguageModel(name or "SmolLM2-135M-Instruct", model, tokenizer)


@torch.no_grad()
def measure_caches(
    language: LanguageModel,
    texts: Sequence[str],
    task: ContextTask,
    length: int,
    budgets: Sequence[Budget],
    examples: int,
    depths: int,
    answer_tokens: int,
) -> list[ContextScore]:
    """Measure caches on the same prompts, each of which the model reads once.

    Args:
        language: the model.
        texts: from which the prompts are cut, in turn.
        task: the task.
        length: tokens of a prompt.
        budgets: the caches.
        examples: prompts of each depth, counted from seed 0.
        depths: places of the number, evenly from the beginning to the end.
        answer_tokens: tokens that follow a prompt without a number.

    Returns:
        A score for each budget.

    Raises:
        UserError: if a text is too short, a prompt longer than what the model was trained for, or a
            budget below what its cache needs.
    """
    most = getattr(language.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if most is not None and length + answer_tokens > most:
        raise UserError(f"{language.name} reads {most:,} tokens: {length:,} of a prompt and an answer are too many")
    places = [i / max(depths - 1, 1) for i in range(depths)] if task.needles else [0.0]
    answers: list[list[list[_Answer]]] = [[[] for _ in places] for _ in budgets]
    for example in range(examples):
        # All lengths have the same numbers and texts.
        draw, text = random.Random(example), texts[example % len(texts)]
        for number, place in enumerate(places):
            prompt = prompt_of(task, text, length, place, language.tokenizer, draw, answer_tokens)
            caches = [budget.make(length) for budget in budgets]
            for of_cache, answer in zip(answers, _answered(language.model, prompt, caches), strict=True):
                of_cache[number].append(answer)
    return [_score(task, length, budget, of) for budget, of in zip(budgets, answers, strict=True)]


@dataclass(frozen=True)
class _Answer:
    right: bool
    loss: float
    seconds: float
    tokens: int
    held_bytes: int


def _answered(model: Any, prompt: Prompt, caches: Sequence[Cache]) -> list[_Answer]:
    """Return the answer of each cache: its tokens are scored one by one, given the right ones before."""
    first, *turns = (torch.tensor([ids], device=model.device) for ids in prompt.turns)
    answer_BA = torch.tensor([prompt.answer], device=model.device)
    # Only the last logits: those of a whole prompt are larger than a cache.
    prompted = model(first, past_key_values=SharedPrompt(caches), logits_to_keep=1).logits
    answers = []
    for cache in caches:
        logits = [prompted]
        for turn in turns:
            logits = [model(turn, past_key_values=cache, logits_to_keep=1).logits]
        started = _clock()
        for token in answer_BA[:, :-1].split(1, 1):
            logits.append(model(token, past_key_values=cache).logits)
        seconds = _clock() - started
        logits_BAV = torch.cat(logits, 1).float()
        loss = -logits_BAV.log_softmax(-1).gather(-1, answer_BA[..., None]).mean()
        right = bool((logits_BAV.argmax(-1) == answer_BA).all())
        answers.append(_Answer(right, float(loss), seconds, len(prompt.answer) - 1, held_bytes(cache)))
    return answers


def _score(task: ContextTask, length: int, budget: Budget, by_depth: Sequence[Sequence[_Answer]]) -> ContextScore:
    answers = [answer for answers in by_depth for answer in answers]
    right = [sum(answer.right for answer in answers) / len(answers) for answers in by_depth]
    rates = sorted(answer.tokens / answer.seconds for answer in answers)
    return ContextScore(
        task.name,
        length,
        budget.cache,
        budget.share,
        sum(right) / len(right) if task.needles else None,
        right if task.needles else [],
        sum(answer.loss for answer in answers) / len(answers),
        max(answer.held_bytes for answer in answers),
        round(rates[len(rates) // 2], 2),
    )


def _clock() -> float:
    """Return the seconds of a clock, after the work of the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def held_bytes(cache: Cache) -> int:
    """Return the bytes of keys, values and what else a cache holds."""
    if isinstance(cache, BudgetCache):
        return cache.held_bytes()
    tensors: list[Tensor] = [x for layer in cache.layers for x in (layer.keys, layer.values)]
    return sum(x.nbytes for x in tensors)


@dataclass(frozen=True)
class ReaderScore:
    """How well a language model, or a program that compresses, predicts whole texts.

    Attributes:
        name: folder of the run, or the program.
        bits_per_byte: over all texts.
        by_place: bits per byte of the ranges of places in a text, see `LanguageScore`.
        num_parameters: of the model.
        peak_bytes: peak memory of the reading above weights and texts.
        seconds: of the reading.
    """

    name: str
    bits_per_byte: float
    by_place: list[dict[str, Any]]
    num_parameters: int | None = None
    peak_bytes: int | None = None
    seconds: float | None = None


def measure_run(folder: Path, texts: Sequence[str], device: str) -> ReaderScore:
    """Let the language model of a run read texts, each from its beginning to its end.

    Raises:
        UserError: if there is no such run.
    """
    run = open_language_run(folder)
    run.model.to(device)
    memory = memory_of(device)
    before, started = memory.begin_peak(), time.perf_counter()
    record = score_texts(run, texts).record()
    seconds = round(time.perf_counter() - started, 1)
    parameters = sum(p.numel() for p in run.model.parameters())
    name, bits = str(folder), record["bits_per_byte"]
    return ReaderScore(name, bits, record["by_place"], parameters, memory.peak() - before, seconds)


def compressors(texts: Sequence[str]) -> list[ReaderScore]:
    """Return the bits per byte of gzip and xz at their highest levels, each text by itself."""
    whole = [text.encode() for text in texts]
    size = sum(map(len, whole))
    programs = {
        "gzip -9": lambda x: gzip.compress(x, 9),
        "xz -9e": lambda x: lzma.compress(x, preset=9 | lzma.PRESET_EXTREME),
    }
    return [
        ReaderScore(name, 8 * sum(len(compress(text)) for text in whole) / size, [])
        for name, compress in programs.items()
    ]


def perplexity(score: ContextScore) -> float:
    """Return the perplexity of a token of the answer."""
    return math.exp(score.loss)


def as_records(scores: Sequence[ContextScore] | Sequence[ReaderScore]) -> list[dict[str, Any]]:
    """Return the scores as JSON objects."""
    return [asdict(score) for score in scores]
