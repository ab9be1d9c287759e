"""List the names that the command line knows: tasks, models, recipes, attention types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rmaat.attention import ATTENTION
from rmaat.errors import UserError
from rmaat.presets import MODELS, yaml_word
from rmaat.problems import NEXT_TOKEN
from rmaat.recipes import recipe_names, recipe_summary
from rmaat.tasks import TASKS, Task, data_folder
from rmaat.tasks.base import SPLITS


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat list`."""
    parser.add_argument("what", choices=sorted(LISTINGS), help="names to list")
    parser.add_argument(
        "--data_dir",
        type=str | None,
        help="data folder, for tasks (default: $RMAAT_DATA, else datasets/)",
    )


def run(arguments: Namespace) -> None:
    """Print the listing."""
    LISTINGS[arguments.what](arguments)


def list_models(arguments: Namespace) -> None:
    """Print each model with its summary, fixed settings, ablations and specific settings."""
    print("model: NAME in a run config, or --model NAME\n")
    for name in MODELS.names():
        preset = MODELS[name]
        print(f"{name:<26}{preset.summary}")
        print(f"    fixes: {', '.join(f'{key} {yaml_word(value)}' for key, value in preset.fixed.items())}")
        groups = {"ablations": preset.ablations, "specific": preset.specific_settings}
        for title, names in groups.items():
            if names:
                print(f"    {title}: {', '.join(names)}")


def list_attention(arguments: Namespace) -> None:
    """Print each attention type, including those of other packages, with its settings."""
    print("attention_type: NAME in a run config, or --attention_type NAME\n")
    for name in ATTENTION.names():
        try:
            attention = ATTENTION[name]
        except UserError as error:
            # Print the error in the type's line, because a broken package must not hide the others.
            print(f"{name:<16}{error}")
            continue
        print(f"{name:<16}{attention.summary}")
        if attention.setting_names:
            print(f"    specific: {', '.join(attention.setting_names)}")


def list_tasks(arguments: Namespace) -> None:
    """Print each task with its sizes, the state of its files, its summary and its data source."""
    data_dir = data_folder(arguments.data_dir)
    print(f"data folder: {data_dir}; examples of {' / '.join(SPLITS)}\n")
    line = "{:<27}{:>9} {:>8}  {:<25} {}".format
    print(line("name", "length", "classes", "examples", "data"))
    for name in TASKS.names():
        info = TASKS[name].info
        length = f"{'2 x ' if info.pair else ''}{info.max_seq_len:,}"
        classes = "tokens" if info.problem_type == NEXT_TOKEN else str(len(info.label_names) or "yours")
        sizes = " / ".join(f"{size:,}" for size in info.sizes) if any(info.sizes) else "yours"
        state = "found" if _has_files(TASKS[name], data_dir) else "missing"
        print(line(name, length, classes, sizes, state))
        print(f"    {info.summary}\n    {info.source}")


def list_recipes(arguments: Namespace) -> None:
    """Print each recipe with its summary."""
    print("rmaat train --recipe NAME [--model MODEL] [--key value ...]\n")
    names = recipe_names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:<{width}}  {recipe_summary(name)}")


def _has_files(task: Task, data_dir: Path) -> bool:
    try:
        return bool(task.sources(data_dir))
    except UserError:
        return False


LISTINGS: dict[str, Callable[[Namespace], None]] = {
    "attention": list_attention,
    "models": list_models,
    "recipes": list_recipes,
    "tasks": list_tasks,
}
