"""KeyDiff (arXiv 2504.15364): the entries stay whose keys are least like the mean key.

Axes: R rows, H key-value heads, N entries, D width of a head.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from rmaat.attention.precision import at_least_float32
from rmaat.cache.base import BudgetCache, Entries, check_budget
from rmaat.cache.slots import SlotLayer, selected


def reference_key_diff(k: Tensor, chunks: Sequence[int], budget: int) -> list[int]:
    """Return the positions that are held after chunks of tokens, for tests and readers.

    Args:
        k: (N, D), keys of one head.
        chunks: tokens of each forward pass; their sum is N.
        budget: entries to hold.
    """

    unit = [row / row.norm() for row in k]

    def most_different(positions: list[int], number: int) -> list[int]:
        anchor = sum(unit[i] for i in positions) / len(positions)
        likeness = {i: float(unit[i] @ anchor / anchor.norm()) for i in positions}
        return sorted(sorted(positions, key=lambda i: likeness[i])[:number])

    held: list[int] = []
    start = 0
    for chunk in chunks:
        if chunk == 1 and len(held) == budget:
            held = most_different(held, budget - 1)
        held += range(start, start + chunk)
        start += chunk
        held = most_different(held, budget) if len(held) > budget else held
    return held


def key_differences(k: Tensor) -> Tensor:
    r"""Return -cos(k_i, mean_j k_j / |k_j|), (..., N, D) -> (..., N), in at least float32."""
    k = at_least_float32(k)
    return -cosine_similarity(k, normalize(k, dim=-1).mean(-2, keepdim=True), dim=-1)


class KeyDiffLayer(SlotLayer):
    """One layer of `KeyDiffCache`."""

    def compress(self, entries: Entries) -> Entries:
        """Return the entries with the most different keys, in order."""
        order_RHN = key_differences(entries["keys"]).argsort(dim=-1, descending=True, stable=True)
        return selected(entries, order_RHN[..., : self.budget].sort(-1).values)

    def evict(self, entries: Entries) -> Tensor:
        """Return the slot with the least different key, (R, H)."""
        return key_differences(entries["keys"]).argmin(-1)


class KeyDiffCache(BudgetCache):
    """Hold the entries whose keys are least like the mean of all keys that the head holds.

    After a prompt above the budget the most different keys stay. While decoding, the most similar
    key is evicted before each token [C]: the paper evicts after each block of tokens.

    Args:
        budget: entries for each layer, row and key-value head.

    Raises:
        UserError: the budget is below 2.
    """

    def __init__(self, budget: int) -> None:
        check_budget(budget, 2, "the last token needs another one to attend to")
        super().__init__(partial(KeyDiffLayer, budget))
