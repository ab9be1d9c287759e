"""Measure a language model with caches of a fixed budget: retrieval, perplexity, memory, time.

    python benchmarks/context.py --data_dir DATA --output results/context

The model is SmolLM2-135M-Instruct (see rmaat.bench.smollm2), or --model. Tasks:

- `needle`: a sentence with a number lies in a novel, at several depths; the question follows.
- `needle_later`: the same, but the question is a second turn, so the cache was reduced before it.
- `text`: a prompt from a novel, then the next tokens, one by one.

A budget is a share of the prompt. Answers are scored token by token, given the right tokens before.
Writes context.json after each cell. The same command continues it. Prints a Markdown table.
"""

import argparse
import json
import lzma
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Cache, DynamicCache

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
from rmaat.errors import UserError
from rmaat.machine.files import write_json
from rmaat.machine.provenance import provenance
from rmaat.machine.tables import Table

CACHES: dict[str, Callable[[int], Cache]] = {
    "full": lambda budget: DynamicCache(),
    "streaming": StreamingCache,
    "keydiff": KeyDiffCache,
    "snapkv": SnapKVCache,
    "nestedkv": NestedKVCache,
    "zeromerge": ZeroMergeCache,
}
TASKS = ("needle", "needle_later", "text")
CITIES = ("Lisbon", "Oslo", "Vienna", "Cairo", "Lima", "Dublin", "Prague", "Tokyo", "Riga")
HEAD = "<|im_start|>user\n"
NEEDLE = " The secret number of {city} is {number}."
TAIL = "\n\nWhat is the secret number of {city}?<|im_end|>\n"
TAIL += "<|im_start|>assistant\nThe secret number of {city} is"

Row = dict[str, Any]


def novels(path: Path) -> list[str]:
    """Return the texts of the test and validation parts."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        books = [json.loads(line) for line in file]
    return [book["text"] for book in books if book["split"] != "train"]


def passage(text: str, tokens: int, tokenizer: Any, draw: random.Random) -> list[int]:
    """Return that many tokens from a random place of a text."""
    size = 8 * tokens
    start = draw.randrange(max(len(text) - size, 1))
    ids: list[int] = tokenizer(text[start : start + size], add_special_tokens=False)["input_ids"]
    if len(ids) < tokens:
        raise UserError(f"a novel has less than {tokens} tokens; choose shorter --lengths")
    return ids[:tokens]


def needle_prompt(
    text: str, length: int, depth: float, tokenizer: Any, draw: random.Random
) -> tuple[list[int], list[int], list[int]]:
    """Return context and question, together `length` tokens, and the tokens of the answer."""

    def encoded(words: str) -> list[int]:
        return tokenizer(words, add_special_tokens=False)["input_ids"]

    city, number = draw.choice(CITIES), draw.randrange(10_000, 100_000)
    needle = encoded(NEEDLE.format(city=city, number=number))
    head, tail = encoded(HEAD), encoded(TAIL.format(city=city))
    answer = encoded(f" {number}")
    hay = passage(text, length - len(head) - len(needle) - len(tail), tokenizer, draw)
    place = round(depth * len(hay))
    # Begin behind the last full stop, unless there is none.
    stops = [i + 1 for i, token in enumerate(hay[:place]) if tokenizer.decode(token).endswith(".")]
    place = stops[-1] if stops and depth < 1 else place
    return head + hay[:place] + needle + hay[place:], tail, answer


def scored(
    model: Any,
    cache: Cache,
    turns: list[Tensor],
    answer: Tensor,
) -> tuple[Tensor, float, float, int]:
    """Return the logits of each token of the answer, seconds of prompt and answer, bytes held.

    Args:
        model: attached.
        cache: empty.
        turns: the parts of the prompt, (B, N) each.
        answer: (B, A).
    """
    started = clock()
    for turn in turns:
        # Only the last logits: those of a whole prompt are larger than the cache.
        out = model(turn, past_key_values=cache, logits_to_keep=1)
    logits, prompted = [out.logits], clock()
    for token in answer[:, :-1].split(1, 1):
        logits.append(model(token, past_key_values=cache).logits)
    return torch.cat(logits, 1).float(), prompted - started, clock() - prompted, held_bytes(cache)


def clock() -> float:
    """Return the seconds of a clock, after the work of the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def held_bytes(cache: Cache) -> int:
    """Return the bytes of keys, values and what else a cache holds."""
    if isinstance(cache, BudgetCache):
        return cache.held_bytes()
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def negative_log_likelihood(logits: Tensor, answer: Tensor) -> Tensor:
    """Return -log p of each token, (B, A, V) and (B, A) -> (B, A)."""
    return -logits.log_softmax(-1).gather(-1, answer[..., None])[..., 0]


def measure_needle(
    model: Any,
    tokenizer: Any,
    texts: list[str],
    cell: Row,
    arguments: argparse.Namespace,
) -> Row:
    """Return the share of right answers, over all and for each depth."""
    depths = [i / max(arguments.depths - 1, 1) for i in range(arguments.depths)]
    right: list[list[float]] = [[] for _ in depths]
    losses, held = [], 0
    for example in range(arguments.examples):
        # Every cache and length has the same cities, numbers and novels.
        draw = random.Random(example)
        for depth, results in zip(depths, right, strict=True):
            text = texts[example % len(texts)]
            context, tail, answer = needle_prompt(text, cell["length"], depth, tokenizer, draw)
            turns = [context, tail] if cell["task"] == "needle_later" else [context + tail]
            batch = [torch.tensor([ids], device=model.device) for ids in (*turns, answer)]
            cache = CACHES[cell["cache"]](cell["budget"])
            logits, _, _, held = scored(model, cache, batch[:-1], batch[-1])
            losses.append(negative_log_likelihood(logits, batch[-1]).mean())
            results.append(float((logits.argmax(-1) == batch[-1]).all()))
    by_depth = [sum(results) / len(results) for results in right]
    return {
        "accuracy": sum(by_depth) / len(by_depth),
        "accuracy_by_depth": by_depth,
        "answer_nll": float(torch.stack(losses).mean()),
        "held_bytes": held,
    }


def measure_text(
    model: Any,
    tokenizer: Any,
    texts: list[str],
    cell: Row,
    arguments: argparse.Namespace,
) -> Row:
    """Return perplexity of the tokens after the prompt, bytes held, and times."""
    losses, seconds, held = [], [], 0
    for example in range(arguments.examples):
        draw, text = random.Random(example), texts[example % len(texts)]
        ids = passage(text, cell["length"] + arguments.scored, tokenizer, draw)
        tokens = torch.tensor([ids], device=model.device)
        prompt, answer = tokens.split([cell["length"], arguments.scored], 1)
        cache = CACHES[cell["cache"]](cell["budget"])
        logits, *times, held = scored(model, cache, [prompt], answer)
        losses.append(negative_log_likelihood(logits, answer).mean())
        seconds.append(times)
    medians = [sorted(times)[len(times) // 2] for times in zip(*seconds, strict=True)]
    return {
        "perplexity": math.exp(torch.stack(losses).mean()),
        "held_bytes": held,
        "prompt_seconds": medians[0],
        "tokens_per_second": (arguments.scored - 1) / medians[1],
    }


def cells(arguments: argparse.Namespace) -> list[Row]:
    """Return one row for each measurement. The full cache has no budget."""
    rows = []
    for task in arguments.tasks:
        for length in arguments.lengths:
            for name in arguments.caches:
                for share in [1.0] if name == "full" else arguments.shares:
                    budget = round(share * length)
                    # A budget that is too small fails here, before any work.
                    CACHES[name](budget)
                    row = {"task": task, "length": length, "cache": name}
                    rows.append({**row, "share": share, "budget": budget})
    return rows


def table(rows: list[Row], task: str) -> Table:
    """Return the table of one task."""
    headings = ["cache", "tokens", "budget", "MiB held"]
    if task == "text":
        headings += ["perplexity", "prompt s", "tokens/s"]
    else:
        headings += ["right %", "nll", "by depth %"]
    lines = []
    for row in rows:
        if row["task"] == task:
            line = [row["cache"], f"{row['length']:,}", f"{row['share']:.0%}"]
            line.append(f"{row['held_bytes'] / 2**20:.1f}")
            if task == "text":
                line += [f"{row['perplexity']:.2f}", f"{row['prompt_seconds']:.2f}"]
                line.append(f"{row['tokens_per_second']:.1f}")
            else:
                by_depth = " ".join(f"{100 * x:.0f}" for x in row["accuracy_by_depth"])
                line += [f"{100 * row['accuracy']:.0f}", f"{row['answer_nll']:.2f}", by_depth]
            lines.append(line)
    return Table(task, headings, lines)


def main() -> None:
    """Measure the cells that the record does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of novels100.jsonl.xz")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--caches", nargs="+", choices=CACHES, default=list(CACHES))
    parser.add_argument("--lengths", nargs="+", type=int, default=[1024, 2048, 4096, 8000])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.05, 0.1, 0.2, 0.5])
    parser.add_argument("--examples", type=int, default=10)
    parser.add_argument("--depths", type=int, default=5)
    parser.add_argument("--scored", type=int, default=128, help="tokens after the prompt of `text`")
    parser.add_argument("--model", help="another language model of transformers, name or folder")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, arguments.dtype)
    if arguments.model:
        tokenizer = AutoTokenizer.from_pretrained(arguments.model)
        model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=dtype).to(device).eval()
    else:
        model, tokenizer = load_smollm2(dtype, device)
    attach(model)
    names = ("examples", "depths", "scored", "model", "dtype")
    settings = {name: getattr(arguments, name) for name in names}
    path = arguments.output / "context.json"
    record: dict[str, Any] = {"settings": settings, "rows": []}
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
    if record["settings"] != settings:
        raise UserError(f"{path} was made with {record['settings']}; choose another --output")
    rows: list[Row] = record["rows"]
    texts = novels(arguments.data_dir / "novels100.jsonl.xz")
    for cell in cells(arguments):
        if any(cell.items() <= row.items() for row in rows):
            continue
        measure = measure_text if cell["task"] == "text" else measure_needle
        with torch.no_grad():
            rows.append(cell | measure(model, tokenizer, texts, cell, arguments))
        print(json.dumps(rows[-1]), flush=True)
        write_json(path, {**provenance(), "settings": settings, "rows": rows})
    print("\n\n".join(table(rows, task).markdown() for task in arguments.tasks))


if __name__ == "__main__":
    main()
