"""The number of a model's parameters, and the feed-forward width that reaches a target number."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rmaat.errors import UserError
from rmaat.models.causal_lm import RmaatForCausalLM
from rmaat.models.classification import RmaatForSequenceClassification
from rmaat.models.configuration import RmaatConfig
from rmaat.problems import NEXT_TOKEN

TOLERANCE = 0.1
"""The largest relative difference from the target number of parameters.

The Long Range Arena allows a model 10% more parameters than the base model. This project also
allows at most 10% fewer.
"""


def count_parameters(settings: Mapping[str, Any]) -> int:
    """Return the number of parameters of the model with these settings of `RmaatConfig`.

    It is a classifier of sequences, or a causal model if the problem type is that of answers at many
    positions.

    The model is built on the meta device, so its weights take no memory.

    Raises:
        UserError: if the settings contradict each other.
    """
    config = RmaatConfig(**settings)
    with torch.device("meta"):
        model = RmaatForCausalLM(config) if config.problem == NEXT_TOKEN else RmaatForSequenceClassification(config)
    return sum(p.numel() for p in model.parameters())


def match_parameters(
    settings: Mapping[str, Any], target: int, lighter: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return the changes to the settings that bring the model nearest to a number of parameters.

    Args:
        settings: settings of `RmaatConfig`. Their intermediate_size has no effect.
        target: the number of parameters to reach.
        lighter: changes to try in this order if intermediate_size would be below half of hidden_size.

    Returns:
        The intermediate_size, and the lighter settings if they were needed.

    Raises:
        UserError: if no intermediate_size comes within `TOLERANCE` of the target.
    """
    candidates = []
    for changes in ({}, *lighter):
        # The number of parameters is linear in intermediate_size, so two points give the line.
        one, two = (count_parameters({**settings, **changes, "intermediate_size": size}) for size in (1, 2))
        width = 1 + round((target - one) / (two - one))
        candidates.append((width, one, changes))
        if 2 * width >= int(settings["hidden_size"]):
            break
    else:
        # No change reached half of hidden_size: take the one with the widest feed-forward part.
        candidates.sort(key=lambda candidate: candidate[0])
    width, one, changes = candidates[-1]
    if width < 1 and one > (1 + TOLERANCE) * target:
        narrowest = {**settings, **changes, "intermediate_size": 1}
        config = RmaatConfig(**narrowest)
        # Suggest a shorter sequence only if one would help. It does if the attention has parameters
        # for each position.
        shortest = count_parameters({**narrowest, "max_seq_len": config.num_segments * config.patch_size})
        shorter = "lower max_seq_len, " if shortest <= (1 + TOLERANCE) * target else ""
        raise UserError(
            f"match_parameters {target:,}: the model has {one:,} parameters even with "
            f"intermediate_size 1{''.join(f', {name} {value}' for name, value in changes.items())}; "
            f"{shorter}raise match_parameters to {math.ceil(one / (1 + TOLERANCE)):,} or more, "
            "or leave it out"
        )
    return {**changes, "intermediate_size": max(width, 1)}
