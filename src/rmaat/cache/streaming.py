"""StreamingLLM (arXiv 2309.17453): the first tokens and a window of the last ones.

Axes: R rows, H key-value heads, N entries, Q new tokens.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from rmaat.cache.base import BudgetCache, Entries, check_budget
from rmaat.cache.slots import SlotLayer, new_positions, selected
from rmaat.errors import UserError, quoted

SINKS = 4
"""First tokens that stay, as in the paper."""


def reference_streaming(chunks: Sequence[int], budget: int, sinks: int = SINKS) -> list[int]:
    """Return the positions that are held after chunks of tokens, for tests and readers."""
    held: list[int] = []
    for chunk in chunks:
        start = held[-1] + 1 if held else 0
        held += range(start, start + chunk)
        if len(held) > budget:
            held = held[:sinks] + held[len(held) - (budget - sinks) :]
    return held


class StreamingLayer(SlotLayer):
    """One layer of `StreamingCache`. Its field `positions` (B, H, L) orders the entries."""

    fields: ClassVar[tuple[str, ...]] = ("keys", "values", "positions")

    def __init__(self, budget: int, sinks: int) -> None:
        super().__init__(budget)
        self.sinks = sinks

    def new_entries(self, key: Tensor, value: Tensor) -> Entries:
        """Return the entries of new tokens with their positions."""
        return super().new_entries(key, value) | {"positions": new_positions(key, self.seen)}

    def compress(self, entries: Entries) -> Entries:
        """Return the first `sinks` and the last entries."""
        order_RHN = entries["positions"].argsort(-1)
        first_RHK = order_RHN[..., : self.sinks]
        last_RHK = order_RHN[..., -(self.budget - self.sinks) :]
        return selected(entries, torch.cat([first_RHK, last_RHK], -1))

    def evict(self, entries: Entries) -> Tensor:
        """Return the slot of the oldest entry behind the first `sinks`, (R, H)."""
        # The sinks never leave the first slots.
        return entries["positions"][..., self.sinks :].argmin(-1) + self.sinks


class StreamingCache(BudgetCache):
    """Hold the first `sinks` tokens and the last `budget - sinks` tokens.

    Keys stay rotated by their true positions [C]. The paper counts positions within the cache.

    Args:
        budget: entries for each layer, row and key-value head.
        sinks: first tokens that stay.

    Raises:
        UserError: the budget leaves no room behind the sinks.
    """

    def __init__(self, budget: int, sinks: int = SINKS) -> None:
        if isinstance(sinks, bool) or not isinstance(sinks, int) or sinks < 0:
            raise UserError(f"sinks must be a whole number from 0, not {quoted(sinks)}")
        check_budget(budget, sinks + 1, f"{sinks} first tokens always stay, and the last one")
        super().__init__(partial(StreamingLayer, budget, sinks))
