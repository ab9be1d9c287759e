"""What a row of a comparison is: a model, or a model with some settings changed."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentParser

from rmaat.compare.grid.models import model_names
from rmaat.errors import UserError, did_you_mean
from rmaat.training.config import RunConfig, check_key
from rmaat.wording import wrong_value

GRAMMAR = re.compile(r"(?P<model>[^\[\]]+)(?:\[(?P<changes>[^\[\]]+)\])?")

SET_BY_THE_GRID = frozenset({"dataset", "data_dir", "output_dir", "overwrite", "resume", "seed", "model"})
"""Settings that make a cell what it is; a variant cannot change them."""


@dataclass(frozen=True)
class Variant:
    """A model and the settings changed in it, sorted by name.

    `str(variant)` is its label, such as `rmaat[astro_mem=false]`; equal variants have equal labels.
    """

    model: str
    changes: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        changes = ",".join(f"{key}={_text(value)}" for key, value in self.changes)
        return f"{self.model}[{changes}]" if changes else self.model


def parse_variant(text: str, groups: Iterable[str] = ()) -> Variant:
    """The variant written as `name` or `name[key=value,...]`.

    Raises:
        UserError: for another form, an unknown model (the nearest of models and `groups` is named), an unknown setting, a
            value that is not of the setting's type, or a setting that the grid itself sets.
    """
    found = GRAMMAR.fullmatch(text.strip())
    if found is None:
        raise UserError(f"'{text}' is not a model; write name or name[key=value,...]")
    model, changes = found["model"], found["changes"]
    if model not in model_names():
        raise UserError(f"unknown model '{model}'; {did_you_mean(model, (*model_names(), *groups))}")
    pairs: dict[str, str] = {}
    for part in changes.split(",") if changes else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or not value:
            raise UserError(f"'{part}' in '{text}' is not key=value")
        check_key(key, f"'{text}'")
        if key in SET_BY_THE_GRID:
            raise UserError(f"'{text}' changes {key}, which the grid sets for each cell")
        if key in pairs:
            raise UserError(f"'{text}' gives {key} twice")
        pairs[key] = value
    return Variant(model, tuple(sorted(_typed(pairs, text).items())))


def _typed(pairs: Mapping[str, str], where: str) -> dict[str, Any]:
    """The values as the types of the run config say."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RunConfig)
    try:
        parsed = parser.parse_args([f"--{key}={value}" for key, value in pairs.items()])
    except Exception as error:
        told = " ".join(str(error).split())
        raise UserError(f"'{where}': {wrong_value(told, parser._actions) or told}") from error
    return {key: getattr(parsed, key) for key in pairs}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
