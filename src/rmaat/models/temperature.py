"""A temperature that depends on the number of tokens: what a calibrated classifier divides logits by.

A knot is a pair [tokens, temperature]. Between knots log T is linear in the logarithm of the number
of tokens, and constant outside of them [C].
"""

from collections.abc import Sequence
from itertools import pairwise
from math import log
from typing import Annotated

import torch
from torch import Tensor

from rmaat.errors import UserError
from rmaat.values import LARGEST_INT, Range, checked

Knots = Sequence[Sequence[float]]
"""Pairs [tokens, temperature] by rising numbers of tokens, at least one."""

Tokens = Annotated[float, Range(1, LARGEST_INT)]
Temperature = Annotated[float, Range(1e-6, 1e6)]


def check_knots(knots: object) -> None:
    """Raise `UserError` unless an object is a list of pairs [tokens, temperature], in rising order."""
    if not isinstance(knots, list) or not knots or any(not isinstance(x, list) or len(x) != 2 for x in knots):
        raise UserError("temperatures must be null, or a list of pairs [tokens, temperature]")
    for tokens, temperature in knots:
        checked("the number of tokens in temperatures", tokens, Tokens)
        checked("a temperature", temperature, Temperature)
    if any(not one[0] < other[0] for one, other in pairwise(knots)):
        raise UserError("temperatures must have rising numbers of tokens")


def temperature_at(tokens: Tensor, knots: Knots) -> Tensor:
    """Return the temperature (...) float32 of each number of tokens (...)."""
    log_tokens = tokens.clamp_min(1).to(torch.float32).log()
    result = torch.full_like(log_tokens, log(knots[0][1]))
    # Each stretch adds the part of its rise that lies before the number of tokens.
    for (start, first), (stop, last) in pairwise(knots):
        width = log(stop / start)
        share = ((log_tokens - log(start)) / width).clamp(0, 1)
        result = result + share * log(last / first)
    return result.exp()
