"""ZeroMerge (arXiv 2503.10714): entries of low attention are merged, not dropped.

A full cache of a head is [residual | heavy | recent]: means of merged entries, the entries with the
highest attention scores, and the last entries. A residual entry of w tokens has the logit
q . k / sqrt(D) + alpha log w.

Axes: B batch rows, R some of the rows, H key-value heads, G queries per key-value head, Q new
tokens, N entries held and new, M merged ones, D width of a head.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from rmaat.attention.precision import at_least_float32, no_autocast
from rmaat.cache.base import BudgetCache, Entries, check_budget, check_share, is_number
from rmaat.cache.received import attention_received, tokens_after
from rmaat.cache.slots import SlotLayer, new_positions, overwrite, selected
from rmaat.errors import UserError, quoted

NEGLIGIBLE = 2.0**-40
"""Queries whose attention has a smaller weight than this in the scores are left out [C]."""


@dataclass(frozen=True)
class Parts:
    """The parts of a full cache, and the constants of the rule.

    Attributes:
        residual, heavy, recent: entries of each part, at least 1; their sum is the budget.
        decay: lambda, the factor of a score for each later token.
        alpha: the factor of log w in the logits.
    """

    residual: int
    heavy: int
    recent: int
    decay: float = 0.98
    alpha: float = 1.0

    @property
    def budget(self) -> int:
        """All entries."""
        return self.residual + self.heavy + self.recent

    @property
    def horizon(self) -> int:
        """The number of last queries whose weight in the scores is not negligible."""
        return sys.maxsize if self.decay == 1 else math.ceil(math.log(NEGLIGIBLE, self.decay))


def parts_of(
    budget: int,
    recent_share: float,
    residual_share: float,
    decay: float,
    alpha: float,
) -> Parts:
    """Return the parts of a budget >= 3: round(share), and at least one entry for each part."""
    recent = min(max(round(recent_share * budget), 1), budget - 2)
    residual = min(max(round(residual_share * (budget - recent)), 1), budget - recent - 1)
    return Parts(residual, budget - recent - residual, recent, decay, alpha)


@dataclass
class Entry:
    """An entry of the plain reference: key, value (D,), position, score and weight."""

    k: Tensor
    v: Tensor
    position: int
    s: float = 0.0
    w: float = 1.0


def reference_zero_merge(
    q: Tensor, k: Tensor, v: Tensor, chunks: Sequence[int], parts: Parts
) -> tuple[Tensor, list[Entry]]:
    """Return the outputs of a head and its entries in the end, for tests and readers.

    Args:
        q: (G, N, D), the queries of one key-value head.
        k, v: (N, D).
        chunks: tokens of each forward pass; their sum is N.
        parts: the parts of a full cache, and the constants.

    Returns:
        (G, N, D), and the entries. A full cache that was reduced before is in the order
        [residual | heavy | recent], the recent ones from old to new.
    """
    outputs, entries, start, in_order = torch.zeros_like(q), list[Entry](), 0, False
    for chunk in chunks:
        if chunk == 1 and len(entries) == parts.budget:
            # A cache that decoding filled is put in order once.
            entries = entries if in_order else reference_reduction(entries, parts)
            in_order = True
            reference_merge(entries, parts)
        entries += [Entry(k[i], v[i], i) for i in range(start, start + chunk)]
        for t in range(start, start + chunk):
            visible = [e for e in entries if e.position <= t]
            bias = torch.tensor([parts.alpha * math.log(e.w) for e in visible]).to(k)
            logits = q[:, t] @ torch.stack([e.k for e in visible]).T / k.shape[1] ** 0.5 + bias
            p = torch.softmax(logits, -1)
            outputs[:, t] = p @ torch.stack([e.v for e in visible])
            for e, a in zip(visible, p.sum(0).tolist(), strict=True):
                e.s = parts.decay * e.s + a
        start += chunk
        if len(entries) > parts.budget:
            entries, in_order = reference_reduction(entries, parts), True
    return outputs, entries


def reference_reduction(entries: list[Entry], parts: Parts) -> list[Entry]:
    """Return [residual | heavy | recent] of entries, at least as many as the budget."""
    entries = sorted(entries, key=lambda e: e.position)
    rest, recent = entries[: -parts.recent], entries[-parts.recent :]
    ranks = sorted(range(len(rest)), key=lambda i: -rest[i].s)
    heavy = [rest[i] for i in sorted(ranks[: parts.heavy])]
    merged = [rest[i] for i in sorted(ranks[parts.heavy :])]
    residual = []
    for group in range(parts.residual):
        members = [e for m, e in enumerate(merged) if m * parts.residual // len(merged) == group]
        w = sum(e.w for e in members)
        mean_k = torch.stack([e.k * (e.w / w) for e in members]).sum(0)
        mean_v = torch.stack([e.v * (e.w / w) for e in members]).sum(0)
        score = max(e.s for e in members)
        residual.append(Entry(mean_k, mean_v, members[0].position, score, w))
    return residual + heavy + recent


def reference_merge(entries: list[Entry], parts: Parts) -> None:
    """Make room for a token in [residual | heavy | recent]."""
    heavy = range(parts.residual, parts.residual + parts.heavy)
    i = min(heavy, key=lambda i: entries[i].s)
    one = entries[i]
    other = max(entries[: parts.residual], key=lambda e: float(one.k @ e.k))
    w = one.w + other.w
    other.k = (one.w * one.k + other.w * other.k) / w
    other.v = (one.w * one.v + other.w * other.v) / w
    other.w, other.s = w, max(one.s, other.s)
    # The oldest recent entry becomes a heavy one.
    entries[i] = entries.pop(parts.residual + parts.heavy)


def reduction(entries: Entries, parts: Parts) -> Entries:
    """Return [residual | heavy | recent] of (R, H, N, ...) entries, N >= budget.

    The last `recent` entries stay, and of the others the `heavy` ones with the highest scores. What
    remains is cut, in order, into `residual` groups of nearly equal size [C]. Each becomes its mean
    key and value, weighted by w, with the sum of weights, the highest score and the first position.
    """
    entries = selected(entries, entries["positions"].argsort(dim=-1))
    length = entries["keys"].shape[2]
    rest, recent = (
        {name: x[:, :, part] for name, x in entries.items()}
        for part in (slice(length - parts.recent), slice(length - parts.recent, length))
    )
    ranks = rest["scores"].argsort(dim=-1, descending=True, stable=True)
    is_heavy = torch.zeros_like(ranks, dtype=torch.bool)
    is_heavy.scatter_(-1, ranks[..., : parts.heavy], True)
    # A stable order of False before True: entries to merge, then heavy ones, each in order.
    order = is_heavy.argsort(dim=-1, stable=True)
    members = order.shape[-1] - parts.heavy
    merged, heavy = selected(rest, order[..., :members]), selected(rest, order[..., members:])
    group = torch.arange(members, device=order.device) * parts.residual // members
    residual = merged_groups(merged, group, parts.residual)
    return {name: torch.cat([residual[name], heavy[name], recent[name]], 2) for name in entries}


def merged_groups(entries: Entries, group: Tensor, groups: int) -> Entries:
    """Return (R, H, groups, ...) of (R, H, M, ...) entries; `group` (M,) ascends from 0."""
    shape = (*entries["weights"].shape[:2], groups)
    weights = entries["weights"].new_zeros(shape).index_add(2, group, entries["weights"])
    scores = entries["scores"].new_zeros(shape)
    index = group.expand_as(entries["scores"])
    scores = scores.scatter_reduce(2, index, entries["scores"], "amax", include_self=False)
    first = torch.searchsorted(group, torch.arange(groups, device=group.device))
    result = {"weights": weights, "scores": scores, "positions": entries["positions"][..., first]}
    for name in ("keys", "values"):
        x = at_least_float32(entries[name]) * entries["weights"][..., None]
        sums = x.new_zeros(*shape, x.shape[-1]).index_add(2, group, x)
        result[name] = (sums / weights[..., None]).to(entries[name].dtype)
    return result


def merge_lowest(entries: Entries, parts: Parts) -> Tensor:
    r"""Return the slot (R, H) that the next token takes in [residual | heavy | recent], in place.

    The heavy entry i of the lowest score is merged into the residual one of the largest k_i . k_j:

    $$k_j \leftarrow \frac{w_i k_i + w_j k_j}{w_i + w_j}, \quad w_j \leftarrow w_i + w_j, \quad
      s_j \leftarrow \max(s_i, s_j)$$

    and v_j likewise. The oldest recent entry takes the place of i; its slot is free.
    """
    start = parts.residual + parts.heavy
    oldest = entries["positions"][..., start:].argmin(-1, keepdim=True) + start
    i = entries["scores"][..., parts.residual : start].argmin(-1, keepdim=True) + parts.residual
    one = selected(entries, i)
    residual_keys = at_least_float32(entries["keys"][:, :, : parts.residual])
    with no_autocast(residual_keys):
        products = residual_keys @ at_least_float32(one["keys"]).mT
    j = products[..., 0].argmax(-1, keepdim=True)
    other = selected(entries, j)
    weights = one["weights"] + other["weights"]
    mean = {}
    for name in ("keys", "values"):
        first, second = (at_least_float32(x[name]) * x["weights"][..., None] for x in (one, other))
        mean[name] = ((first + second) / weights[..., None]).to(one[name].dtype)
    scores = torch.maximum(one["scores"], other["scores"])
    overwrite(entries, j, {**other, **mean, "weights": weights, "scores": scores})
    overwrite(entries, i, selected(entries, oldest))
    return oldest[..., 0]


class ZeroMergeLayer(SlotLayer):
    """One layer of `ZeroMergeCache`.

    Attributes:
        scores, weights: (B, H, L), in at least float32.
        positions: (B, H, L) int32, of the first token of an entry.
        merged: whether any weight is above 1.
    """

    fields: ClassVar[tuple[str, ...]] = ("keys", "values", "scores", "weights", "positions")
    merged: bool

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts.budget)
        self.parts = parts

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.merged = False

    def new_entries(self, key: Tensor, value: Tensor) -> Entries:
        """Return the entries of new tokens with their positions, without score."""
        zeros = torch.zeros_like(at_least_float32(key[..., :1])[..., 0])
        fields = {"scores": zeros, "weights": zeros + 1, "positions": new_positions(key, self.seen)}
        return super().new_entries(key, value) | fields

    def bias(self, entries: Entries) -> Tensor | None:
        """Return alpha log w, (B, H, N), or None before the first merge."""
        if not self.merged or self.parts.alpha == 0:
            return None
        # Empty slots have the weight 0; the mask hides them.
        return self.parts.alpha * entries["weights"].clamp_min(1).log()

    def observe(
        self,
        entries: Entries,
        query: Tensor,
        tokens: Tensor | None,
        mask: Tensor | None,
        scale: float,
    ) -> None:
        """Scale the scores by lambda for each token, and add the attention of each query."""
        dtype, decay, horizon = entries["scores"].dtype, self.parts.decay, self.parts.horizon
        later = tokens_after(query, tokens)
        # Early queries of a long prompt count next to nothing.
        if tokens is None:
            start = max(query.shape[2] - horizon, 0)
            age = torch.full_like(entries["scores"][:, :1, :1], decay ** query.shape[2])
            decays = decay ** later[:, start:].to(dtype)
        else:
            start = int((later >= horizon).all(0).long().sum())
            age = (decay ** tokens.sum(-1).to(dtype))[:, None, None]
            decays = decay ** later[:, start:].to(dtype) * tokens[:, start:]
        mask = None if mask is None else mask[:, :, start:]
        query = query[:, :, start:]
        received = attention_received(query, entries["keys"], mask, decays, scale)
        entries["scores"].mul_(age).add_(received)

    def compress(self, entries: Entries) -> Entries:
        """Return [residual | heavy | recent]."""
        self.merged |= entries["keys"].shape[2] > self.budget
        return reduction(entries, self.parts)

    def evict(self, entries: Entries) -> Tensor:
        """Return the slot (R, H) of the oldest recent entry, after a merge."""
        self.merged = True
        return merge_lowest(entries, self.parts)


class ZeroMergeCache(BudgetCache):
    """Hold means of merged entries, entries with high attention scores, and the last entries.

    The score of an entry is the attention that it receives, s <- decay s + a. A prompt above the
    budget is reduced after its attention, see `reduction`. While decoding, an entry is merged
    before each token, see `merge_lowest`. A cache that decoding fills is put in order once, without
    a merge [C].

    Args:
        budget: entries for each layer, row and key-value head.
        recent_share: the share of the last entries in the budget.
        residual_share: the share of means in the rest of the budget.
        decay: lambda in (0, 1].
        alpha: the factor of log w in the logits, at least 0.

    Raises:
        UserError: the budget is below 3, or a setting is out of its range.
    """

    def __init__(
        self,
        budget: int,
        recent_share: float = 0.5,
        residual_share: float = 0.02,
        decay: float = 0.98,
        alpha: float = 1.0,
    ) -> None:
        check_budget(budget, 3, "it holds a mean, an entry of a high score and a recent one")
        check_share("recent_share", recent_share)
        check_share("residual_share", residual_share)
        if not is_number(decay) or not 0 < decay <= 1:
            raise UserError(f"decay must be above 0 and at most 1, not {quoted(decay)}")
        if not is_number(alpha) or not 0 <= alpha < math.inf:
            raise UserError(f"alpha must be a number from 0, not {quoted(alpha)}")
        parts = parts_of(budget, recent_share, residual_share, decay, alpha)
        super().__init__(partial(ZeroMergeLayer, parts))
