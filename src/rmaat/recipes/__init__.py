"""Recipes: the settings with which each task is trained, as YAML files in this folder.

A recipe holds what differs from the defaults, and nothing that a model fixes. It may name another
recipe, whose settings it changes. Knows nothing of torch.
"""

import re
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import takewhile
from typing import Any

from rmaat.errors import UserError, did_you_mean
from rmaat.settings_file import parse_settings

SUFFIX = ".yaml"


def recipe_names(group: str | None = None) -> tuple[str, ...]:
    """Return the names of all recipes, or of those in one folder such as 'paper', sorted."""
    names = _names(resources.files(__name__), "")
    return tuple(sorted(name for name in names if group is None or name.startswith(f"{group}/")))


def recipe_layers(name: str) -> list[dict[str, Any]]:
    """Return the settings of a recipe, after those of the recipes that it changes.

    Raises:
        UserError: naming the nearest recipe if there is none of that name.
    """
    settings = parse_settings(_text(name), f"recipe '{name}'")
    below = settings.pop("recipe", None)
    return [*([] if below is None else recipe_layers(below)), settings]


def recipe_summary(name: str) -> str:
    """Return the first sentence of a recipe's comment, without its full stop."""
    lines = takewhile(lambda line: line.startswith("# "), _text(name).splitlines())
    return re.split(r"\.(?: |$)", " ".join(line.removeprefix("# ") for line in lines))[0]


def _text(name: str) -> str:
    if name not in recipe_names():
        raise UserError(f"unknown recipe '{name}'; {did_you_mean(name, recipe_names())}")
    file = resources.files(__name__).joinpath(*f"{name}{SUFFIX}".split("/"))
    return file.read_text(encoding="utf-8")


def _names(folder: Traversable, prefix: str) -> list[str]:
    names = []
    for entry in folder.iterdir():
        if entry.is_dir():
            names += _names(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            names.append(prefix + entry.name.removesuffix(SUFFIX))
    return names
