"""The order of events in one forward pass over a cache with a fixed budget.

A model hands each layer's new keys and values to `BudgetLayer.update`. The layer marks the keys and
returns them. The function in `attention.py` recognises the mark and calls `BudgetLayer.attend`,
which knows the queries and the mask too. `slots.py` and `nested.py` store the entries.

Axes: B batch rows, R some of the rows, H key-value heads, G queries per key-value head, Q new
tokens, L entries that the cache holds, N entries held and new, D width of a head.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeGuard

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from rmaat.errors import UserError, quoted

Entries = dict[str, Tensor]
"""Entries of a cache: `keys` (B, H, N, D), `values`, and fields of a rule, (B, H, N)."""

Attention = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(keys, values, mask) -> output; the mask is None, bool, or a number to add to each logit."""

MARK = "_rmaat_cache_layer"
"""The attribute of a key tensor that names its layer."""


def concatenated(first: Entries, second: Entries) -> Entries:
    """Return the entries of both, (B, H, N1, ...) and (B, H, N2, ...) -> (B, H, N1 + N2, ...)."""
    return {name: torch.cat([first[name], second[name]], 2) for name in first}


class BudgetLayer(CacheLayerMixin):
    """The entries of one layer, at most `budget` for each row and key-value head on average.

    Padding is never stored, so rows may hold different numbers of entries.

    Attributes:
        keys, values: as the model computed them: keys are rotated by their true positions. The
            other `fields` are attributes as well.
        seen: tokens of a row so far, with padding. The next token has this position.
        count: (B, 1) or (B, H) int64 on the CPU, entries of each row or of each of its heads;
            (0, 1) before the first token.
        waiting: whether new keys and values wait for `attend`.
    """

    is_compileable = False
    is_croppable = False
    fields: ClassVar[tuple[str, ...]] = ("keys", "values")
    seen: int
    count: Tensor
    waiting: bool

    def __init__(self, budget: int) -> None:
        super().__init__()
        self.budget = budget
        self.reset()

    # What a rule and its storage define.

    @abstractmethod
    def fit(self, entries: Entries, occupied: Tensor | None) -> None:
        """Store (B, H, N, ...) entries, reduced to the budget.

        Args:
            entries: held and new.
            occupied: (B, 1 or H, N), False = no token; None if all hold one.
        """

    @abstractmethod
    def load(self) -> Entries:
        """Return the entries, (B, H, L, ...); those of a row or head come first."""

    @abstractmethod
    def save(self, entries: Entries) -> None:
        """Store entries as `load` returns them."""

    def new_entries(self, key: Tensor, value: Tensor) -> Entries:
        """Return the entries of new tokens, (B, H, Q, ...)."""
        return {"keys": key.detach(), "values": value.detach()}

    def bias(self, entries: Entries) -> Tensor | None:
        """Return what the rule adds to the logits of each entry, (B, H, N), or None."""
        return None

    def observe(
        self,
        entries: Entries,
        query: Tensor,
        tokens: Tensor | None,
        mask: Tensor | None,
        scale: float,
    ) -> None:
        """Learn in place which entries matter.

        Args:
            entries: (B, H, N, ...).
            query, tokens, scale: as in `attend_many`.
            mask: as the attention had it, (B, 1 or H G, Q, N), or None.
        """

    # The order of events.

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return the new keys and values, (B, H, Q, D); the keys are marked for `attend`."""
        if len(self.count) not in (0, key_states.shape[0]):
            raise UserError(
                f"the cache holds {len(self.count)} rows, the new tokens have "
                f"{key_states.shape[0]}; use a new cache for another batch"
            )
        self.lazy_initialization(key_states, value_states)
        self.seen += key_states.shape[2]
        self.waiting = True
        # A view carries the mark, so that no stored tensor refers to the layer.
        marked = key_states.view_as(key_states)
        setattr(marked, MARK, self)
        return marked, value_states

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float,
        attention: Attention,
    ) -> Tensor:
        """Return the attention of the new queries over entries and new tokens; store the latter.

        Args:
            query: (B, H G, Q, D).
            key, value: (B, H, Q, D) of the new tokens.
            mask: (B, 1, Q, Q) bool of the new tokens, True = visible. None is causal.
            scale: the factor of q . k in the logits.
            attention: computes the output.

        Raises:
            UserError: the mask hides all new tokens, or a row has no token at all.
        """
        self.waiting = False
        new = self.new_entries(key, value)
        # The last row of a causal mask hides nothing but padding.
        tokens = None if mask is None else mask[:, 0, -1]
        if tokens is not None and not bool(tokens.any()):
            raise UserError(
                "the attention mask has no token that the cache has not seen; pass a longer prompt "
                "and a mask of all its tokens"
            )
        if tokens is not None and bool(tokens.all()):
            tokens = None
        if len(self.count) and query.shape[2] == 1 and tokens is None:
            return self.attend_one(query, new, scale, attention)
        return self.attend_many(query, new, tokens, mask, scale, attention)

    def attend_one(self, query: Tensor, new: Entries, scale: float, attention: Attention) -> Tensor:
        """Return the attention of one more token a row; arguments as in `attend`."""
        return self.attend_many(query, new, None, None, scale, attention)

    def attend_many(
        self,
        query: Tensor,
        new: Entries,
        tokens: Tensor | None,
        mask: Tensor | None,
        scale: float,
        attention: Attention,
    ) -> Tensor:
        """Return the attention over all entries and new tokens; then reduce them to the budget.

        Args:
            query, mask, scale, attention: as in `attend`.
            new: entries of the new tokens, (B, H, Q, ...).
            tokens: (B, Q), False = padding; None if there is none.
        """
        entries, occupied = new, None if tokens is None else tokens[:, None, :]
        if len(self.count):
            held, length = self.load(), query.shape[2]
            entries = concatenated(held, new)
            held_BHL = self.occupied(held["keys"].shape[2])
            if tokens is not None or not bool(held_BHL.all()):
                shape = (*held_BHL.shape[:2], length)
                new_BHQ = mask_of_ones(query, shape) if occupied is None else occupied.expand(shape)
                occupied = torch.cat([held_BHL, new_BHQ], -1)
            # One token that sees all entries needs no mask.
            if length > 1 or occupied is not None:
                # Each query sees the held entries, and the new tokens up to its own.
                mask = mask_of_ones(query, (1, 1, length, length)).tril() if mask is None else mask
                rows = (*held_BHL.shape[:2], length, -1)
                mask = torch.cat([held_BHL[:, :, None].expand(rows), mask.expand(rows)], -1)
        mask = self.with_bias(mask, entries, query)
        output = attention(entries["keys"], entries["values"], mask)
        self.observe(entries, query, tokens, mask, scale)
        self.fit(entries, occupied)
        return output

    def occupied(self, length: int) -> Tensor:
        """Return which of the first L entries hold a token, (B, 1 or H, L) bool."""
        return (torch.arange(length) < self.count[..., None]).to(self.device)

    def with_bias(self, mask: Tensor | None, entries: Entries, query: Tensor) -> Tensor | None:
        """Return the mask (B, 1 or H, Q, N) plus the rule's bias for the query heads, or None."""
        bias = self.bias(entries)
        if bias is not None:
            bias = bias[:, :, None, :].to(query.dtype)
            # The least number instead of minus infinity: padding sees nothing, and 0 / 0 in its
            # rows would spread.
            least = torch.finfo(query.dtype).min
            mask = bias if mask is None else torch.where(mask, bias, least)
        if mask is not None and mask.shape[1] > 1:
            mask = mask.repeat_interleave(query.shape[1] // mask.shape[1], 1)
        return mask

    def held_bytes(self) -> int:
        """Return the bytes of the entries."""
        held = (getattr(self, name) for name in self.fields if len(self.count))
        return sum(x.untyped_storage().nbytes() for x in held)

    # The interface of transformers.

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Remember dtype and device."""
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True

    def get_seq_length(self) -> int:
        """Return the tokens seen, so that positions go on counting."""
        return self.seen

    def get_max_length(self) -> int:
        """Return -1: the cache reads sequences of any length."""
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return length and offset of the mask, which covers new tokens only; see `attend`."""
        return query_length, self.seen

    def reset(self) -> None:
        """Forget everything."""
        for name in self.fields:
            setattr(self, name, None)
        self.seen = 0
        self.count = torch.zeros(0, 1, dtype=torch.int64)
        self.waiting = self.is_initialized = False

    def select_rows(self, index: Tensor) -> None:
        """Replace the rows by those at an index (B',) on the CPU."""
        if len(self.count):
            rows = {name: x.index_select(0, index.to(x.device)) for name, x in self.load().items()}
            self.count = self.count[index]
            self.save(rows)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the rows for beam search."""
        self.select_rows(beam_idx.cpu())

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows only."""
        self.select_rows(indices.cpu())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self.select_rows(torch.arange(len(self.count)).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Raise a UserError: evicted entries cannot come back."""
        raise UserError("a cache with a budget cannot take tokens back; use no assistant model")


def mask_of_ones(query: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a bool mask of True on the device of the queries."""
    return torch.ones(shape, dtype=torch.bool, device=query.device)


def check_rows(occupied: Tensor) -> None:
    """Raise a UserError if a row of a mask (B, 1 or H, N) has no token."""
    tokens = occupied.sum((1, 2))
    if not bool(tokens.all()):
        raise UserError(f"row {int(tokens.argmin())} of the attention mask has no token")


class BudgetCache(Cache):
    """A cache with a fixed budget for all layers of a model. `attach` the model first.

    Args:
        layer: returns a new layer.
    """

    def __init__(self, layer: Callable[[], BudgetLayer]) -> None:
        super().__init__(layer_class_to_replicate=layer)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the new keys and values, (B, H, Q, D), for the attention of `rmaat.cache`."""
        # The attention function of the layer before has run by now, if the model calls it.
        if any(layer.waiting for layer in self.layers[max(layer_idx - 1, 0) : layer_idx + 1]):
            raise UserError(
                f"the model does not compute its attention over {type(self).__name__}; call "
                "rmaat.cache.attach(model) once, and use a new cache"
            )
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Return length and offset of the mask, which covers new tokens only."""
        # The model asks this first, and fails without a token.
        if query_length == 0:
            raise UserError("the prompt has no token that the cache has not seen")
        return super().get_mask_sizes(query_length, layer_idx)

    def held_bytes(self) -> int:
        """Return the bytes of all tensors that the cache holds between two forward passes."""
        return sum(layer.held_bytes() for layer in self.layers)

    def update_conv_state(self, *args: Any, **kwargs: Any) -> Tensor:
        """Raise a UserError: the model has a layer without keys and values."""
        name = type(self).__name__
        raise UserError(f"{name} is for models whose layers are all attention; this one has others")

    update_recurrent_state = update_conv_state


def check_budget(budget: object, least: int, reason: str) -> None:
    """Raise a UserError if the budget is no int of at least `least`."""
    if isinstance(budget, bool) or not isinstance(budget, int):
        raise UserError(f"budget must be a whole number of entries, not {quoted(budget)}")
    if budget < least:
        raise UserError(f"budget {budget} is below {least}: {reason}")


def check_share(name: str, share: object) -> None:
    """Raise a UserError if a share is no number between 0 and 1, both excluded."""
    if not is_number(share) or not 0 < share < 1:
        raise UserError(f"{name} must be between 0 and 1, not {quoted(share)}")


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is an int or float."""
    return isinstance(value, int | float) and not isinstance(value, bool)
