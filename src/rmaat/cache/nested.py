"""NestedKV (arXiv 2605.26678): entries stay whose keys differ from the mean keys at three scales.

The budget is one for all heads of a layer, so heads hold different numbers of entries.

Axes: B batch rows, H key-value heads, N entries, D width of a head, S the three scales, E entries
of all rows and heads.
"""

import math
from collections.abc import Sequence
from functools import partial
from statistics import pstdev

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, normalize, pad

from rmaat.attention.precision import at_least_float32
from rmaat.cache.base import BudgetCache, BudgetLayer, Entries, check_budget, check_rows

PROTECTED = 4
"""First positions that always stay."""

SHORTEST_BLOCK, LONGEST_BLOCK, BLOCKS = 128, 256, 32
TRAILING = 64
"""A block has N / BLOCKS positions within these bounds. The local mean is over TRAILING ones."""

WEIGHTS = (0.4, 0.4, 0.2)
"""w0 of the sequence, the block and the last positions."""

SHARPNESS, GATE_SLOPE, GATE_CENTRE = 3.0, 10.0, 0.60
GUARANTEED = 0.20
"""The share of an even budget that each head has for certain."""

SPARE = 32
"""A full cache is cut by a SPARE-th of its budget, at most by MOST_SPARE, to score seldom [C]."""
MOST_SPARE = 16


def spare_entries(budget: int) -> int:
    """Return how many entries a head becomes free on average if a full cache is cut [C]."""
    return min(max(budget // SPARE, 1), MOST_SPARE)


def reference_nested_scores(k: Tensor) -> list[float]:
    """Return `nested_scores` of the keys (N, D) of one head, for tests and readers."""
    unit, n = k / k.norm(dim=-1, keepdim=True), len(k)
    block = min(max(n // BLOCKS, SHORTEST_BLOCK), LONGEST_BLOCK)

    def unlike(i: int, first: int, last: int) -> float:
        anchor = unit[first:last].mean(0)
        return -float(unit[i] @ anchor / anchor.norm())

    def to_unit_range(values: list[float]) -> list[float]:
        low, high = min(values), max(values)
        return [(value - low) / (high - low) if high > low else 0.0 for value in values]

    starts = [i // block * block for i in range(n)]
    scales = [
        to_unit_range([unlike(i, 0, n) for i in range(n)]),
        to_unit_range([unlike(i, starts[i], starts[i] + block) for i in range(n)]),
        to_unit_range([unlike(i, max(i - TRAILING + 1, 0), i + 1) for i in range(n)]),
    ]
    weights, tenth = [], max(n // 10, 1)
    for w, a in zip(WEIGHTS, map(sorted, scales), strict=True):
        weights.append(w * math.exp(SHARPNESS * (sum(a[-tenth:]) - sum(a[:tenth])) / tenth))
    triples = [list(a) for a in zip(*scales, strict=True)]
    surprise = to_unit_range([pstdev(a) for a in triples])
    scores, mean = [], sum(surprise) / n
    for a, u in zip(triples, surprise, strict=True):
        gate = 1 / (1 + math.exp(-GATE_SLOPE * (u - mean - GATE_CENTRE)))
        blend = sum(w * x for w, x in zip(weights, a, strict=True)) / sum(weights)
        scores.append((1 - gate) * blend + gate * max(a))
    return scores


def reference_nested_kv(k: Tensor, chunks: Sequence[int], budget: int) -> list[list[int]]:
    """Return the positions that each head holds after chunks of tokens, for tests and readers.

    Args:
        k: (H, N, D), keys of one row.
        chunks: tokens of each forward pass; their sum is N.
        budget: entries of a head on average.
    """

    def best(held: list[list[int]], number: int) -> list[list[int]]:
        certain, ranked = max(PROTECTED, math.floor(GUARANTEED * number)), []
        for head, positions in enumerate(held):
            score = dict(zip(positions, reference_nested_scores(k[head, positions]), strict=True))
            others = sorted((-score[i], i) for i in positions[PROTECTED:])
            order = positions[:PROTECTED] + [i for _, i in others]
            ranked += [(-math.inf, head, i) for i in order[:certain]]
            ranked += [(-score[i], head, i) for i in order[certain:]]
        stay = sorted(ranked)[: number * len(held)]
        return [sorted(i for _, h, i in stay if h == head) for head in range(len(held))]

    held: list[list[int]] = [[] for _ in k]
    start = 0
    for chunk in chunks:
        held = [[*positions, *range(start, start + chunk)] for positions in held]
        if sum(map(len, held)) > budget * len(held):
            held = best(held, budget - spare_entries(budget) if start else budget)
        start += chunk
    return held


def nested_scores(k: Tensor) -> Tensor:
    r"""Return how much each key differs from the mean keys around it, (H, N, D) -> (H, N).

    $$a_s = -\cos(\hat k, \mu_s), \quad w = \mathrm{softmax}(\log w_0 + 3 \Delta), \quad
      (1 - g) \sum_s w_s a_s + g \max_s a_s, \quad g = \sigma(10 (u - \bar u - 0.6))$$

    mu_s are the means of k / |k| over the sequence, the key's block, and the last 64 keys with its
    own. The a_s, and u, their standard deviation, are scaled to [0, 1] for each head. Delta is the
    mean of the largest tenth of a_s less that of the smallest tenth. Computed in at least float32.
    """
    unit_ND = normalize(at_least_float32(k), dim=-1)
    n = k.shape[-2]
    blocks = unit_ND.split(min(max(n // BLOCKS, SHORTEST_BLOCK), LONGEST_BLOCK), -2)
    # The sum over a window that begins before the first key, divided by the keys that exist.
    windows = avg_pool1d(pad(unit_ND.mT, (TRAILING - 1, 0)), TRAILING, stride=1)
    sums_ND = windows.mT * TRAILING
    anchors = (
        unit_ND.mean(-2, keepdim=True),
        torch.cat([block.mean(-2, keepdim=True).expand_as(block) for block in blocks], -2),
        sums_ND / torch.arange(1, n + 1, device=k.device).clamp_max(TRAILING)[:, None],
    )
    a_SN = scaled(torch.stack([-(unit_ND * normalize(x, dim=-1)).sum(-1) for x in anchors], -2))
    tenth = max(n // 10, 1)
    sorted_SN = a_SN.sort(-1).values
    spread_S = sorted_SN[..., -tenth:].mean(-1) - sorted_SN[..., :tenth].mean(-1)
    weights_S = torch.softmax(a_SN.new_tensor(WEIGHTS).log() + SHARPNESS * spread_S, -1)
    surprise_N = scaled(a_SN.std(-2, correction=0))
    surprise_N = surprise_N - surprise_N.mean(-1, keepdim=True)
    gate_N = torch.sigmoid(GATE_SLOPE * (surprise_N - GATE_CENTRE))
    return (1 - gate_N) * (weights_S[..., None] * a_SN).sum(-2) + gate_N * a_SN.amax(-2)


def scaled(x: Tensor) -> Tensor:
    """Return x scaled to [0, 1] along the last axis; 0 if all are equal."""
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return (x - low) / (high - low).clamp_min(torch.finfo(x.dtype).tiny)


def best_entries(scores: Tensor, occupied: Tensor, number: int) -> Tensor:
    """Return which `number` H entries of a row stay, (H, N) bool.

    Args:
        scores: (H, N).
        occupied: (H, N), at least `number` H True. The first four of each head always stay.
        number: entries of a head on average; each head has `GUARANTEED` of it for certain.
    """
    scores = scores.masked_fill(occupied.cumsum(-1) <= PROTECTED, math.inf)
    scores = scores.masked_fill(~occupied, -math.inf)
    ranks = scores.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    certain = (ranks < math.floor(GUARANTEED * number)) & occupied
    flat = scores.masked_fill(certain, math.inf).flatten()
    order = flat.argsort(dim=0, descending=True, stable=True)
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[order[: number * len(scores)]] = True
    return kept.view_as(scores)


class NestedKVLayer(BudgetLayer):
    """One layer of `NestedKVCache`.

    Attributes:
        keys, values: (E, D), the entries of all rows and heads in order, E <= B H budget.
        count: (B, H) int64 on the CPU, entries of each row and head.
    """

    def load(self) -> Entries:
        """Return the entries with room for the longest head, (B, H, L, D)."""
        length = int(self.count.max())
        shape = (*self.count.shape, length)
        if bool((self.count == length).all()):
            return {name: getattr(self, name).view(*shape, -1) for name in self.fields}
        occupied = self.occupied(length)
        entries = {}
        for name in self.fields:
            flat = getattr(self, name)
            entries[name] = flat.new_zeros(*shape, flat.shape[-1])
            entries[name][occupied] = flat
        return entries

    def save(self, entries: Entries, occupied: Tensor | None = None) -> None:
        """Store the entries of (B, H, N, D) that are occupied, (B, H, N), by default the first."""
        occupied = self.occupied(entries["keys"].shape[2]) if occupied is None else occupied
        for name, x in entries.items():
            setattr(self, name, x[occupied.to(x.device)])

    def fit(self, entries: Entries, occupied: Tensor | None) -> None:
        """Store the entries of (B, H, N, ...), the best ones of rows above the budget."""
        keys = entries["keys"]
        kept = torch.ones(keys.shape[:3], dtype=torch.bool)
        if occupied is not None:
            kept &= occupied.cpu()
            check_rows(kept)
        # The first cut fills the budget, later ones leave room for some tokens.
        number = self.budget - (spare_entries(self.budget) if len(self.count) else 0)
        above = kept.sum((1, 2)) > self.budget * kept.shape[1]
        for row in above.nonzero()[:, 0].tolist():
            index_HN = kept[row].to(keys.device)
            kept[row] = best_entries(scores_of(keys[row], index_HN), index_HN, number).cpu()
        self.count = kept.sum(-1)
        self.save(entries, kept)


def scores_of(k: Tensor, occupied: Tensor) -> Tensor:
    """Return `nested_scores` of the occupied keys of each head, (H, N, D) -> (H, N), else 0."""
    if bool(occupied.all()):
        return nested_scores(k)
    scores = torch.zeros_like(at_least_float32(k)[..., 0])
    for head, index in enumerate(occupied):
        scores[head, index] = nested_scores(k[head : head + 1, index])[0]
    return scores


class NestedKVCache(BudgetCache):
    """Hold the entries whose keys differ most from the mean keys of the sequence, block and window.

    A prompt above the budget is cut once, to the budget, as in the paper. The paper appends decoded
    tokens without limit. Here a full cache is cut again, by a 32nd of the budget, at most 16 [C].

    Args:
        budget: entries for each layer, row and key-value head, on average over the heads.

    Raises:
        UserError: the budget leaves no room behind the first 4 positions.
    """

    def __init__(self, budget: int) -> None:
        reason = f"the first {PROTECTED} positions always stay, and one more"
        check_budget(budget, PROTECTED + 1, reason)
        super().__init__(partial(NestedKVLayer, budget))
