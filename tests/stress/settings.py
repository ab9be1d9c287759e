"""Random settings through a file, flags and Python: all accept them, or all refuse in one line.

`python -m tests.stress.settings --count 5000 --seed 0 --output settings.json` prints the counts and
exits with status 1 if a config broke a rule. The rules:

- The three ways agree, and their resolved configs are equal.
- A refusal is a `UserError`, and one printable line of at most 600 characters with exit status 2.
- A tiny accepted model has a finite loss and finite gradients.
"""

import contextlib
import io
import json
import math
import random
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin
from unittest import mock

import numpy as np
import torch
import yaml
from tests.stress.trials import Trials, run_program

from rmaat.cli import train
from rmaat.cli.main import USER_MISTAKE, main
from rmaat.cli.parser import Parser
from rmaat.errors import ERROR_PREFIX, LONGEST_MESSAGE, UserError, quoted
from rmaat.models.size import count_parameters
from rmaat.presets import MODELS
from rmaat.recipes import recipe_names
from rmaat.settings_file import settings_text
from rmaat.tasks import TASKS
from rmaat.training.config import RunConfig
from rmaat.training.data import RunData
from rmaat.training.run import build_model, prepare_data
from rmaat.values import OneOf, Range, allows, kinds

TINY: Mapping[str, Any] = {
    "dataset": "cifar10",
    "max_seq_len": 64,
    "num_segments": 4,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
"""Settings below the random ones."""

WORDS: Mapping[str, tuple[str, ...]] = {
    "dataset": tuple(name for name in TASKS.names() if name != "files"),
    "model": MODELS.names(),
    "recipe": recipe_names(),
    "attention_type": ("astro", "softmax", "linear", "nystromformer", "linformer", "performer", "luna", "vla", "s4d"),
    "hidden_act": ("gelu", "relu", "silu", "tanh"),
    "replay_budget": ("2GiB", "500 MB"),
}
"""Valid words of settings whose annotation does not list them."""

HOSTILE_TEXT = (
    "",
    "[/]",
    "[bold]x",
    "\x1b[31mred",
    "\x00",
    "a\nb",
    "a" * 300,
    "x/" * 3000,
    "it's " * 400,
    "\u202etxt",
    "\u200b",
    "\udcff",
    "null",
    "true",
    "5",
    "1e3",
    "nan",
    "*a",
    "&a b",
    "!!python/object:os.system x",
    "{a: b",
    "- 1",
    "%s%n",
    "../../etc/passwd",
    "9" * 5000,
    "日本語",
)
HOSTILE: tuple[Any, ...] = (
    *HOSTILE_TEXT,
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63),
    10**400,
    10**5000,
    0.0,
    -0.0,
    0.5,
    1e-300,
    5e-324,
    1e300,
    -1.5,
    math.nan,
    math.inf,
    -math.inf,
    [],
    [1, 2],
    {},
    {"a": 1},
    {"tau_long": "x"},
    [[[[[[]]]]]],
    {1: 2},
)
PYTHON_ONLY: tuple[Any, ...] = (
    np.int64(3),
    np.float32(0.5),
    np.bool_(True),
    np.zeros(3),
    torch.tensor(1),
    Decimal(1),
    1j,
    b"x",
    (1,),
    {1},
    object(),
    print,
    RunConfig,
)
"""Values that neither a file nor a flag can hold."""

MACRO_NUMBERS = (1e-6, 0.1, 1.0, 30.0, 1e6)
LARGEST_MODEL = 200_000
"""Parameters of the largest model that is built."""


def draw_value(rng: random.Random, name: str, kind: Any) -> Any:
    """Return a value that the annotation allows, at its bounds now and then."""
    if name in WORDS and rng.random() < 0.9:
        return rng.choice(WORDS[name])
    if name == "macro_model":
        keys = ("tau_long", "tau_short", "cycle", "coupling", "duty", "decay_long", "amplitude")
        return {rng.choice(keys): rng.choice(MACRO_NUMBERS) for _ in range(rng.randint(0, 2))}
    members = get_args(kind) if get_origin(kind) not in (None, Annotated, Literal, dict) else (kind,)
    member = rng.choice(members)
    plain, *limits = get_args(member) if get_origin(member) is Annotated else (member,)
    if plain is NoneType:
        return None
    if plain is bool:
        return rng.random() < 0.5
    if get_origin(plain) is Literal:
        return rng.choice(get_args(plain))
    if plain is str:
        words = next((limit.words for limit in limits if isinstance(limit, OneOf)), ("some text",))
        return rng.choice(words)
    limit = next((limit for limit in limits if isinstance(limit, Range)), Range(0, 8))
    least, most = max(limit.least, limit.above, -1e6), min(limit.most, 1e9)
    if plain is int:
        step = 1 if limit.parity is None else 2
        values = [int(least), int(least) + step, int(least) + 3 * step, int(least) + 7 * step]
        return rng.choice([*values, int(most) - (limit.parity == "odd" and int(most) % 2 == 0)])
    return rng.choice([least, most, (least + most) / 2, least + 1e-3 * (most - least), 1])


def draw_settings(rng: random.Random) -> dict[str, Any]:
    """Return random settings of a run config: tiny ones, with up to six others on top."""
    settings = dict(TINY)
    for _ in range(rng.randint(1, 6)):
        name = rng.choice(list(kinds(RunConfig)))
        kind = rng.random()
        if kind < 0.8:
            settings[name] = draw_value(rng, name, kinds(RunConfig)[name])
        elif kind < 0.97:
            settings[name] = rng.choice(HOSTILE)
        else:
            settings[name] = rng.choice(PYTHON_ONLY)
    return settings


def as_flags(settings: Mapping[str, Any]) -> list[str] | None:
    """Return the flags that mean the settings; None if a flag cannot say one of them."""
    flags = []
    for name, value in settings.items():
        text = allows(kinds(RunConfig)[name], str)
        if text and (not isinstance(value, str) or value in ("null", "") or "9" * 100 in value):
            # A flag's word is text where text is allowed, and 'null' is null.
            return None
        if name == "replay_budget" and value not in WORDS[name]:
            return None
        try:
            word = value if text or value == "auto" else "null" if value is None else json.dumps(value)
        except (TypeError, ValueError):
            return None
        flags.append(f"--{name}={word}")
    return flags


@dataclass(frozen=True)
class Answer:
    """What one way said: the resolved config, or the line of its refusal."""

    config: str = ""
    refusal: str = ""


class Broken(Exception):  # noqa: N818
    """A rule that a config broke."""


@contextlib.contextmanager
def one_parser() -> Iterator[None]:
    """Declare the flags of `rmaat train` once: that takes most of the time of a command."""
    parser = Parser(prog="rmaat train", print_config=None)
    train.add_arguments(parser)
    with (
        mock.patch("rmaat.cli.parser.Parser", return_value=parser),
        mock.patch("rmaat.cli.train.add_arguments"),
    ):
        yield


def ask_command(words: list[str]) -> Answer:
    """Return the answer of `rmaat train --print_config`; raise `Broken` for an unclean refusal."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["train", "--print_config=true", *words])
    if status == 0:
        return Answer(config=out.getvalue())
    lines = err.getvalue().splitlines()
    errors = [line for line in lines if line.startswith(ERROR_PREFIX)]
    if status != USER_MISTAKE or len(errors) != 1 or lines[-1] != errors[0]:
        raise Broken(f"status {status}, standard error {err.getvalue()[-1000:]!r}")
    return Answer(refusal=clean(errors[0].removeprefix(ERROR_PREFIX)))


def ask_python(settings: Mapping[str, Any]) -> tuple[Answer, RunData | None]:
    """Return the answer of `prepare_data`, and the data if it accepts the settings."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            data = prepare_data(RunConfig.resolved(settings))
    except UserError as error:
        return Answer(refusal=clean(str(error))), None
    except OSError as error:
        # The name of a folder is too long for the file system. The command line cleans the message.
        return Answer(refusal=error.strerror), None
    except Exception as error:
        raise Broken(traceback.format_exc(limit=-3)) from error
    return Answer(config=data.run.to_yaml()), data


def clean(line: str) -> str:
    """Return a refusal; raise `Broken` if it is empty, long or not printable."""
    if not line or len(line) > LONGEST_MESSAGE or not line.isprintable():
        raise Broken(f"an unclean line: {line!r}")
    return line


def run_model(data: RunData) -> str:
    """Take one step of a tiny model; return what was done, and raise `Broken` for a NaN."""
    run = data.run
    sizes = (run.hidden_size, run.intermediate_size, run.max_seq_len, data.vocab_size, run.associative_size)
    if max(sizes) > 5000 or run.num_hidden_layers > 8 or run.num_memory_tokens > 300:
        return "too large to build"
    if count_parameters(data.model_settings()) > LARGEST_MODEL:
        return "too large to build"
    torch.manual_seed(0)
    model = build_model(data)
    rng = np.random.default_rng(0)
    length = min(2 * run.tokens_per_segment, run.max_seq_len)
    ids = torch.from_numpy(rng.integers(data.vocab_size, size=(4, length)))
    inputs: dict[str, Any] = {"input_ids": ids}
    if run.input_type == "values":
        inputs = {"input_values": torch.from_numpy(rng.standard_normal((4, length))).float()}
    if run.two_towers:
        inputs["other_input_ids"] = ids
    labels = torch.from_numpy(rng.integers(model.config.num_labels, size=4))
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not loss.isfinite() or not all(gradient.isfinite().all() for gradient in gradients):
        raise Broken(f"loss {loss.item()}, or a gradient, is not finite")
    return "built, with a finite loss"


def try_settings(settings: Mapping[str, Any], folder: Path) -> str:
    """Return the outcome of one config in words; raise `Broken` if it breaks a rule."""
    answer, data = ask_python(settings)
    answers = {"Python": answer}
    try:
        path = folder / "run.yaml"
        path.write_text(settings_text(settings))
        answers["file"] = ask_command([f"--config={path}"])
    except (yaml.YAMLError, ValueError):
        # The file cannot hold a value that only Python has.
        if answer.config:
            raise Broken("Python accepts a value that a file cannot hold") from None
    flags = as_flags(settings)
    if flags is not None and "file" in answers:
        by_flags = ask_command(flags)
        if " has no effect: " not in by_flags.refusal:
            answers["flags"] = by_flags
    configs = {way: answer.config for way, answer in answers.items()}
    if len(set(configs.values())) > 1:
        said = {way: answer.refusal or "accepted" for way, answer in answers.items()}
        raise Broken(f"the ways differ: {said}")
    if data is None:
        return f"refused by {', '.join(answers)}"
    return f"accepted by {', '.join(answers)}; {run_model(data)}"


def try_random_settings(trials: Trials, count: int) -> None:
    """Try configs; each has its own seed, so that `--seed N --count 1` repeats the N-th."""
    with one_parser():
        for seed in range(trials.seed, trials.seed + count):
            settings = draw_settings(random.Random(seed))
            try:
                trials.outcomes[try_settings(settings, trials.folder)] += 1
            except Broken as rule:
                changed = {name: quoted(value) for name, value in settings.items() if TINY.get(name) is not value}
                trials.fault(f"seed {seed}: {rule}: {changed}")


if __name__ == "__main__":
    sys.exit(run_program("tests.stress.settings", __doc__, {"settings": try_random_settings}))
