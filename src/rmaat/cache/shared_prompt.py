"""One reading of a prompt for several caches, to compare them in the time of one.

Tokens of a first prompt attend to each other in full whatever the cache, so its forward pass serves
all. Each cache reduces its own entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import Cache

from rmaat.cache.base import MARK, Attention, BudgetCache, BudgetLayer


@dataclass(frozen=True)
class _SharedLayer:
    """One layer of several caches with a budget, already updated with the keys and values of a prompt."""

    layers: Sequence[BudgetLayer]

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, attention: Attention
    ) -> Tensor:
        """Return the attention of a prompt; arguments as in `BudgetLayer.attend`."""
        output = attention(key, value, mask)
        for layer in self.layers:
            layer.attend(query, key, value, mask, scale, lambda keys, values, mask: output)
        return output


class SharedPrompt(Cache):
    """What a model takes as cache while it reads a prompt for several empty caches.

        model(prompt, past_key_values=SharedPrompt(caches))
        for cache in caches:
            model(token, past_key_values=cache)

    Args:
        caches: empty; those of this room, and full ones of transformers. `attach` the model first.
    """

    def __init__(self, caches: Sequence[Cache]) -> None:
        assert all(cache.get_seq_length() == 0 for cache in caches)
        super().__init__(layers=[])
        self.caches = caches

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Hand keys and values (B, H, N, D) to each cache; return them for the attention."""
        for cache in self.caches:
            cache.update(key_states, value_states, layer_idx, *args, **kwargs)
        layers = [cache.layers[layer_idx] for cache in self.caches if isinstance(cache, BudgetCache)]
        marked = key_states.view_as(key_states)
        setattr(marked, MARK, _SharedLayer([layer for layer in layers if isinstance(layer, BudgetLayer)]))
        return marked, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: the prompt is the first."""
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Return length and offset of the mask."""
        return query_length, 0
