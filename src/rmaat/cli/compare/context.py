"""Compare what language models with a limited memory know of a long text.

Caches of a fixed budget are measured in a language model of transformers: they retrieve numbers from
texts and predict what follows. Causal models of `rmaat pretrain` read whole texts. The same command
resumes an interrupted comparison.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from rmaat.bench.context_prompts import CACHES, TASKS
from rmaat.cli.progress import named_bar
from rmaat.errors import UserError, did_you_mean

JSON, READERS = "context.json", "by_place.png"

SETTINGS = ("model", "dtype", "caches", "shares", "examples", "depths", "answer_tokens")
"""Flags that a resumed comparison must have in common with its record."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat compare context`."""
    width = max(map(len, TASKS))
    lines = [f"  {task.name:<{width}}  {task.summary}" for task in TASKS.values()]
    parser.description = "\n".join([str(parser.description).strip(), "", "tasks:", *lines])
    parser.add_argument("--output", type=Path, required=True, help="folder of the comparison; made if missing")
    parser.add_argument(
        "--texts",
        type=str,
        nargs="+",
        required=True,
        help="text files, folders, or files of records with a column text",
    )
    parser.add_argument("--tasks", type=str, nargs="*", default=list(TASKS), help="tasks (default: all)")
    parser.add_argument(
        "--caches", type=str, nargs="+", default=list(CACHES), help=f"caches (default: {', '.join(CACHES)})"
    )
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[1024, 2048, 4096], help="tokens of the prompts (1024 2048 4096)"
    )
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=[0.05, 0.1, 0.2, 0.5],
        help="budgets, as shares of the prompt (0.05 0.1 0.2 0.5)",
    )
    parser.add_argument("--examples", type=int, default=4, help="prompts of each depth")
    parser.add_argument("--depths", type=int, default=5, help="places of the number in the text")
    parser.add_argument("--answer_tokens", type=int, default=64, help="tokens that follow a prompt of `text`")
    parser.add_argument(
        "--model",
        type=str | None,
        default=None,
        help="language model of transformers, name or folder (default: SmolLM2-135M-Instruct from the package index)",
    )
    parser.add_argument("--dtype", type=str, default="float32", help="type of its weights: float32 or bfloat16")
    parser.add_argument(
        "--runs", type=Path, nargs="*", default=[], help="folders of causal models of `rmaat pretrain` to compare"
    )
    parser.add_argument("--device", type=str | None, default=None, help="cpu or cuda (default: cuda if present)")


def run(arguments: Namespace) -> None:
    """Measure what the record lacks, print the tables, and write context.json and the figures."""
    check(arguments)
    from rmaat.bench.context import (
        ContextScore,
        ReaderScore,
        as_records,
        budgets_of,
        compressors,
        load_language_model,
        measure_caches,
        measure_run,
    )
    from rmaat.bench.context_report import cache_tables, draw_needles, draw_readers, reader_table
    from rmaat.cli.compare.common import device_of, print_tables
    from rmaat.cli.folders import writable_folder
    from rmaat.machine.files import write_json
    from rmaat.machine.provenance import provenance

    device = device_of(arguments.device)
    budgets = budgets_of(arguments.caches, arguments.shares)
    for length in arguments.lengths:
        for budget in budgets:
            # A budget that is too small fails here, before any work.
            budget.make(length)
    texts = read_texts(arguments.texts)
    path = writable_folder(arguments.output) / JSON
    settings: dict[str, Any] = {name: arguments[name] for name in SETTINGS}
    stored = read_record(path, settings)
    scores = [ContextScore(**row) for row in stored.get("caches", [])]
    readers = [ReaderScore(**row) for row in stored.get("readers", [])]

    def store() -> None:
        record = {"settings": settings, "caches": as_records(scores), "readers": as_records(readers)}
        write_json(path, {**provenance(), **record})

    known = {(score.task, score.length) for score in scores}
    wanted = [(task, length) for task in arguments.tasks for length in arguments.lengths]
    missing = [pair for pair in wanted if pair not in known]
    runs = [folder for folder in arguments.runs if str(folder) not in {reader.name for reader in readers}]
    with named_bar(len(missing) + len(runs) + bool(missing)) as begin:
        if missing:
            begin("loading the language model")
            language = load_language_model(arguments.model, arguments.dtype, device)
        for task, length in missing:
            begin(f"{task}, {length:,} tokens")
            sizes = (arguments.examples, arguments.depths, arguments.answer_tokens)
            scores += measure_caches(language, texts, TASKS[task], length, budgets, *sizes)
            store()
        for folder in runs:
            begin(str(folder))
            readers.append(measure_run(folder, texts, device))
            store()
    if runs and not any(reader.num_parameters is None for reader in readers):
        readers += compressors(texts)
        store()
    asked = [score for score in scores if (score.task, score.length) in wanted]
    tables = cache_tables(asked)
    for task in dict.fromkeys(score.task for score in asked if score.accuracy is not None):
        draw_needles(asked, task, arguments.output / f"{task}.png")
    if readers:
        tables.append(reader_table(readers))
        draw_readers(readers, arguments.output / READERS)
    print_tables(tables, [f"written to {arguments.output}"])


def check(arguments: Namespace) -> None:
    """Raise `UserError` for a wrong flag."""
    for flag, known in (("tasks", list(TASKS)), ("caches", list(CACHES))):
        for name in arguments[flag]:
            if name not in known:
                raise UserError(f"--{flag}: there is no '{name}'; {did_you_mean(name, known)}")
    if arguments.dtype not in ("float32", "bfloat16"):
        raise UserError(f"--dtype must be float32 or bfloat16, not '{arguments.dtype}'")
    least = {"examples": 1, "depths": 1, "answer_tokens": 2}
    for name, count in least.items():
        if arguments[name] < count:
            raise UserError(f"--{name} must be at least {count}, got {arguments[name]}")
    for share in arguments.shares:
        if not 0 < share <= 1:
            raise UserError(f"--shares must be above 0 and at most 1, got {share:g}")
    for length in arguments.lengths:
        if length < 1:
            raise UserError(f"--lengths must be at least 1, got {length}")
    if not arguments.tasks and not arguments.runs:
        raise UserError("nothing to compare: name --tasks or --runs")


def read_texts(inputs: list[str]) -> list[str]:
    """Return the texts of files, folders and files of records.

    Raises:
        UserError: if one cannot be read, or there is none.
    """
    from rmaat.tasks.files import INFO
    from rmaat.tasks.inputs import read_inputs

    examples = list(read_inputs(inputs, INFO, ["text"]))
    for example in examples:
        if example.problem is not None:
            raise UserError(f"{example.name}: {example.problem}")
    if not examples:
        raise UserError(f"--texts: there is no text in {', '.join(inputs)}")
    return [example.texts[0] for example in examples]


def read_record(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the record of an interrupted comparison; nothing if there is none.

    Raises:
        UserError: if it is damaged, or was made with other settings.
    """
    if not path.exists():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        former = record["settings"]
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} is damaged; remove it, or choose another --output") from error
    differing = [name for name in settings if former.get(name) != settings[name]]
    if differing:
        changes = ", ".join(f"{name} is {settings[name]} instead of {former.get(name)}" for name in differing)
        raise UserError(f"{path} was made with other settings: {changes}; choose another --output")
    return record
