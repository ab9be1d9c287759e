"""The models of a grid by name, as settings of a run."""

import json
from dataclasses import asdict
from functools import cache
from typing import Any

from rmaat.presets import MODELS, resolve
from rmaat.training.config import RunConfig

BASE = "rmaat"
"""The model whose number of parameters the others are matched to, by the width of their feed-forward part."""


def model_names() -> tuple[str, ...]:
    """All models, in the order in which tables show them."""
    return MODELS.names()


def with_model(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """The settings of a run of that model, where `settings` are those of the task and the training.

    Its size is matched here, so that a variant of it differs in what it names and in nothing else.

    Raises:
        UserError: where it cannot be brought to within 10% of the base's parameters.
    """
    return dict(_sized(json.dumps(settings), name))


@cache
def _sized(settings: str, name: str) -> dict[str, Any]:
    from rmaat.training.data import RunData

    given = resolve(json.loads(settings), {"model": name})
    if name == BASE:
        return given
    run = RunConfig(**given, match_parameters=_base_parameters(settings))
    matched = asdict(RunData.of(run).sized().run)
    return {**given, **{key: value for key, value in matched.items() if value != getattr(run, key)}}


@cache
def _base_parameters(settings: str) -> int:
    from rmaat.models.size import count_parameters
    from rmaat.training.data import RunData

    return count_parameters(RunData.of(RunConfig(**_sized(settings, BASE))).model_settings())
