"""A causal model of a finished run: bits per byte by the place in a text, and texts that it writes.

Axes: N tokens of a text, K ranges of places.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TextStreamer, set_seed

from rmaat.errors import UserError
from rmaat.models import RmaatForCausalLM
from rmaat.tasks.tokenizer import TokenizedTask
from rmaat.training.config import RunConfig
from rmaat.training.data import RunData
from rmaat.training.quiet import quiet_transformers
from rmaat.training.run_folder import RUN_CONFIG, check_is_run
from rmaat.training.stored_model import check_finished_run

FIRST_RANGE = 256
"""Tokens of the first range of places; each following range is as long as all before it."""


@dataclass(frozen=True)
class LanguageRun:
    """A finished run of the objective 'causal': its task, which has the tokens, and its best model."""

    task: TokenizedTask
    model: RmaatForCausalLM


@quiet_transformers()
def open_language_run(folder: Path) -> LanguageRun:
    """Return the language model of a run's folder, in evaluation mode.

    Raises:
        UserError: if a file is missing or damaged, or the run has another objective.
    """
    check_is_run(folder)
    check_finished_run(folder)
    run = RunConfig.from_yaml(folder / RUN_CONFIG)
    if run.objective != "causal":
        raise UserError(f"'{folder}' is no language model: its objective is '{run.objective}', not 'causal'")
    task = RunData.of_finished_run(run, folder, ("text",)).task
    if not isinstance(task, TokenizedTask):
        raise UserError(f"'{folder}' is a model of {run.dataset}, whose tokens are no text")
    return LanguageRun(task, RmaatForCausalLM.from_pretrained(folder).eval())


@dataclass
class _Range:
    """The tokens of a range of places: sums over all texts."""

    first: int
    stop: int
    tokens: int = 0
    bits: float = 0.0
    bytes: float = 0.0

    def record(self) -> dict[str, Any]:
        return {
            "first": self.first,
            "last": self.stop - 1,
            "tokens": self.tokens,
            "bits_per_byte": self.bits / self.bytes,
        }


@dataclass
class LanguageScore:
    """How well a model predicts texts.

    Attributes:
        texts, tokens, bytes: what was read.
        bits: the sum over all tokens but the first of each text, in bits.
        ranges: the same by the place in a text: 0 to 255, 256 to 511, 512 to 1,023, and so on.
    """

    texts: int = 0
    tokens: int = 0
    bytes: int = 0
    bits: float = 0.0
    ranges: list[_Range] = field(default_factory=list)

    def add(self, losses_N: Tensor, size: int) -> None:
        """Add the losses of a text's tokens, in nats, and the number of its bytes."""
        bits_N = losses_N.double().cpu().numpy() / math.log(2)
        self.texts, self.tokens, self.bytes = self.texts + 1, self.tokens + len(bits_N), self.bytes + size
        self.bits += float(bits_N.sum())
        # A token is taken to have as many bytes as the text's tokens have on average [C].
        bytes_per_token = size / len(bits_N)
        first, stop, index = 0, FIRST_RANGE, 0
        while first < len(bits_N):
            if index == len(self.ranges):
                self.ranges.append(_Range(first, stop))
            bits_R = bits_N[first:stop]
            place = self.ranges[index]
            place.tokens += len(bits_R)
            place.bits += float(bits_R.sum())
            place.bytes += bytes_per_token * len(bits_R)
            first, stop, index = stop, 2 * stop, index + 1

    def record(self) -> dict[str, Any]:
        """Return what is stored."""
        return {
            "texts": self.texts,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "bits_per_byte": self.bits / self.bytes,
            "perplexity": 2 ** (self.bits / self.tokens),
            "by_place": [place.record() for place in self.ranges],
        }


@torch.no_grad()
def score_texts(run: LanguageRun, texts: Iterable[str]) -> LanguageScore:
    """Return the bits with which the model predicts texts, each read as a whole from its beginning.

    The memory is that of one segment and of 12 bytes a token.
    """
    score = LanguageScore()
    for text in texts:
        ids = torch.from_numpy(run.task.encode(text).copy())[None].to(run.model.device)
        losses = run.model(ids, labels=ids.long(), output_token_losses=True).token_losses
        score.add(losses[0], len(text.encode()))
    return score


def write_on(run: LanguageRun, prompt: str, max_new_tokens: int, seed: int, **settings: Any) -> str:
    """Print what the model writes after a prompt, token by token, and return it.

    Args:
        run: the language model.
        prompt: the text before it, read in the memory of one segment.
        max_new_tokens: how many tokens it writes.
        seed: seed of the draws.
        **settings: others of `generate` of transformers, such as temperature and top_p.

    Raises:
        UserError: for an empty prompt.
    """
    ids = torch.from_numpy(run.task.encode(prompt).astype(np.int64))[None].to(run.model.device)
    tokenizer = run.task.hub_tokenizer(len(ids[0]) + max_new_tokens)
    set_seed(seed)
    out = run.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        pad_token_id=0,
        streamer=TextStreamer(tokenizer, skip_prompt=True),
        **settings,
    )
    return run.task.decode(out[0, ids.shape[1] :].cpu().numpy())
