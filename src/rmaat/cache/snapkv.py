"""SnapKV (arXiv 2404.14469): entries stay that the last queries of the prompt attend to.

Axes: R rows, H key-value heads, G queries per key-value head, N entries, Q new tokens, D width of a
head.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

from rmaat.cache.base import BudgetCache, Entries, check_budget
from rmaat.cache.received import attention_received, tokens_after
from rmaat.cache.slots import selected
from rmaat.cache.streaming import StreamingLayer
from rmaat.errors import UserError, quoted

WINDOW = 32
"""Last tokens, whose queries vote and which stay, as in the paper's experiments."""

KERNEL = 5
"""Neighbours over which votes are averaged [C: as in the code of the paper]."""


def reference_snap_kv(
    q: Tensor,
    k: Tensor,
    chunks: Sequence[int],
    budget: int,
    window: int,
    kernel: int,
) -> list[int]:
    """Return the positions that are held after chunks of tokens, for tests and readers.

    Args:
        q: (G, N, D), the queries of one key-value head.
        k: (N, D).
        chunks: tokens of each forward pass; their sum is N.
        budget: entries to hold.
        window: last tokens that vote and stay.
        kernel: odd number of neighbours over which votes are averaged.
    """
    held: list[int] = []
    start = 0
    for chunk in chunks:
        if chunk == 1 and len(held) == budget:
            # The selected entries stay, the window slides.
            del held[budget - window]
        held += range(start, start + chunk)
        start += chunk
        if len(held) > budget:
            votes = dict.fromkeys(held, 0.0)
            for t in held[-min(window, chunk) :]:
                visible = [i for i in held if i <= t]
                p = torch.softmax(q[:, t] @ k[visible].T / k.shape[1] ** 0.5, -1).sum(0)
                for i, p_i in zip(visible, p.tolist(), strict=True):
                    votes[i] += p_i
            rest, half = held[:-window], kernel // 2
            near = [rest[max(n - half, 0) : n + half + 1] for n in range(len(rest))]
            pooled = {i: sum(votes[j] for j in js) for i, js in zip(rest, near, strict=True)}
            best = sorted(rest, key=lambda i: -pooled[i])[: budget - window]
            held = sorted(best) + held[-window:]
    return held


class SnapKVLayer(StreamingLayer):
    """One layer of `SnapKVCache`: the selected entries are the sinks of a sliding window.

    Attributes:
        votes: (B, H, L), the attention that entries received from the last queries of a turn.
    """

    fields: ClassVar[tuple[str, ...]] = ("keys", "values", "positions", "votes")

    def __init__(self, budget: int, window: int, kernel: int) -> None:
        super().__init__(budget, budget - window)
        self.window = window
        self.kernel = kernel

    def new_entries(self, key: Tensor, value: Tensor) -> Entries:
        """Return the entries of new tokens with their positions, without votes."""
        votes = key.new_zeros(key.shape[:3], dtype=torch.promote_types(key.dtype, torch.float32))
        return super().new_entries(key, value) | {"votes": votes}

    def observe(
        self,
        entries: Entries,
        query: Tensor,
        tokens: Tensor | None,
        mask: Tensor | None,
        scale: float,
    ) -> None:
        """Replace the votes by those of the last queries of a prompt or turn."""
        if query.shape[2] > 1:
            later = tokens_after(query, tokens)
            # Queries before the window of every row have no vote.
            start = int((later >= self.window).all(0).long().sum())
            voters = later < self.window
            if tokens is not None:
                voters &= tokens
            part = None if mask is None else mask[:, :, start:]
            weights = voters[:, start:].to(entries["votes"].dtype)
            query = query[:, :, start:]
            received = attention_received(query, entries["keys"], part, weights, scale)
            entries["votes"].copy_(received)

    def compress(self, entries: Entries) -> Entries:
        """Return the entries with the most votes, averaged over neighbours, and the last ones."""
        entries = selected(entries, entries["positions"].argsort(dim=-1))
        votes_RHN = entries["votes"][..., : -self.window]
        # All sums have the same divisor, so that entries at the ends are not favoured.
        votes_RHN = avg_pool1d(votes_RHN, self.kernel, stride=1, padding=self.kernel // 2)
        order_RHN = votes_RHN.argsort(dim=-1, descending=True, stable=True)
        best_RHK = order_RHN[..., : self.sinks].sort(-1).values
        length = entries["keys"].shape[2]
        last_K = torch.arange(length - self.window, length, device=best_RHK.device)
        last_RHK = last_K.expand(*best_RHK.shape[:2], -1)
        return selected(entries, torch.cat([best_RHK, last_RHK], -1))


class SnapKVCache(BudgetCache):
    """Hold the entries that the last queries of the prompt attend to, and a window of last ones.

    The queries of a key-value head vote together [C]. While decoding, the window slides and the
    selected entries stay [C]. The paper appends decoded tokens without limit. In a later turn that
    is shorter than the window, only its own queries vote [C].

    Args:
        budget: entries for each layer, row and key-value head.
        window: last tokens that vote and stay.
        kernel: odd number of neighbours over which votes are averaged.

    Raises:
        UserError: the budget leaves no room beside the window, or a setting is out of its range.
    """

    def __init__(self, budget: int, window: int = WINDOW, kernel: int = KERNEL) -> None:
        for name, value in (("window", window), ("kernel", kernel)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"{name} must be a whole number from 1, not {quoted(value)}")
        if kernel % 2 == 0:
            raise UserError(f"kernel must be odd, not {kernel}")
        check_budget(budget, window + 1, f"the last {window} tokens always stay, and one more")
        super().__init__(partial(SnapKVLayer, budget, window, kernel))
