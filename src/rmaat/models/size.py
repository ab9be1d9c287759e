"""How many parameters a model has, and the feed-forward width that gives it a certain number."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rmaat.errors import UserError
from rmaat.models.classification import RmaatForSequenceClassification
from rmaat.models.configuration import RmaatConfig

TOLERANCE = 0.1
"""The Long Range Arena's rule for comparisons: at most this share more than the base model, and here also less."""


def count_parameters(settings: Mapping[str, Any]) -> int:
    """The parameters of the classifier with these settings of `RmaatConfig`; it is built without memory for weights.

    Raises:
        UserError: where the settings do not fit together.
    """
    with torch.device("meta"):
        model = RmaatForSequenceClassification(RmaatConfig(**settings))
    return sum(p.numel() for p in model.parameters())


def match_parameters(
    settings: Mapping[str, Any], target: int, lighter: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """The changes to the settings that bring the model nearest to a number of parameters.

    Args:
        settings: settings of `RmaatConfig`; what they say of intermediate_size makes no difference.
        target: the number wanted.
        lighter: changes to try in this order where intermediate_size would be below half of hidden_size.

    Returns:
        intermediate_size, and the lighter settings where they were needed.

    Raises:
        UserError: where no intermediate_size comes within `TOLERANCE` of the target.
    """
    found = []
    for changes in ({}, *lighter):
        one, two = (count_parameters({**settings, **changes, "intermediate_size": size}) for size in (1, 2))
        width = 1 + round((target - one) / (two - one))
        found.append((width, one, changes))
        if 2 * width >= int(settings["hidden_size"]):
            break
    else:
        found.sort(key=lambda candidate: candidate[0])
    width, one, changes = found[-1]
    if width < 1 and one > (1 + TOLERANCE) * target:
        narrowest = {**settings, **changes, "intermediate_size": 1}
        config = RmaatConfig(**narrowest)
        shortest = count_parameters({**narrowest, "max_seq_len": config.num_segments * config.patch_size})
        shorter = "lower max_seq_len, " if shortest <= (1 + TOLERANCE) * target else ""
        raise UserError(
            f"match_parameters {target:,}: the model has {one:,} parameters even with intermediate_size 1"
            f"{''.join(f', {name} {value}' for name, value in changes.items())}; {shorter}raise match_parameters to "
            f"{math.ceil(one / (1 + TOLERANCE)):,} or more, or leave it out"
        )
    return {**changes, "intermediate_size": max(width, 1)}
