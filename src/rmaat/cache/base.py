"""The storage of a cache with a fixed budget, and the order of events in one forward pass.

A forward pass of a model hands each layer's new keys and values to `BudgetLayer.update`. The layer
marks the keys and returns them. `attention.py` recognises the mark and calls `BudgetLayer.attend`,
which knows the queries and the mask too. One token (decoding) takes the place of an entry that
`evict` frees before the attention. Several tokens (a prompt, or a later turn) attend to everything
first. Then `compress` reduces the entries to the budget.

Axes: B batch rows, R some of the rows, H key-value heads, G queries per key-value head, Q new
tokens, L entries that the cache holds, N entries held and new, D width of a head.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from rmaat.errors import UserError, quoted

Entries = dict[str, Tensor]
"""Entries of a cache: `keys` (R, H, N, D), `values`, and fields of a rule, (R, H, N)."""

Rows = Tensor | slice
"""Indices of rows, or the slice of all rows."""

ALL_ROWS = slice(None)

MARK = "_rmaat_cache_layer"
"""The attribute of a key tensor that names its layer."""


def concatenated(first: Entries, second: Entries) -> Entries:
    """Return the entries of both, (R, H, N1, ...) and (R, H, N2, ...) -> (R, H, N1 + N2, ...)."""
    return {name: torch.cat([first[name], second[name]], 2) for name in first}


def selected(entries: Entries, index: Tensor) -> Entries:
    """Return the entries at an index (R, H, K) into N, (R, H, N, ...) -> (R, H, K, ...)."""
    return {name: torch.take_along_dim(x, _like(index, x), 2) for name, x in entries.items()}


def write(entries: Entries, index: Tensor, new: Entries) -> None:
    """Overwrite the entries at an index (R, H, K) into N by `new`, (R, H, K, ...), in place."""
    for name, x in entries.items():
        x.scatter_(2, _like(index, x).expand_as(new[name]), new[name])


def _like(index: Tensor, x: Tensor) -> Tensor:
    return index[(..., *(None,) * (x.dim() - index.dim()))]


class BudgetLayer(CacheLayerMixin):
    """The entries of one layer, at most `budget` for each row and key-value head.

    Entries of row b are at `[b, :, :count[b]]`. Padding is never stored, so a row may hold fewer
    entries than the tensors have room for.

    Attributes:
        keys, values: (B, H, L, D), L <= budget, as the model computed them: keys are rotated by
            their true positions. Further fields of a rule, (B, H, L), are attributes as well.
        seen: tokens of a row so far, with padding. The next token has this position.
        count: (B,) int64 on the CPU, entries of each row; (0,) before the first token.
        compressed: (B,) bool on the CPU, rows that `compress` reduced to the budget.
        waiting: whether new keys and values wait for `attend`.
    """

    is_compileable = False
    is_croppable = False
    seen: int
    count: Tensor
    compressed: Tensor
    waiting: bool
    fields: ClassVar[tuple[str, ...]] = ("keys", "values")

    def __init__(self, budget: int) -> None:
        super().__init__()
        self.budget = budget
        self.reset()

    # What a rule defines.

    @abstractmethod
    def compress(self, entries: Entries) -> Entries:
        """Return the `budget` entries that stay of (R, H, N, ...) ones, N >= budget."""

    @abstractmethod
    def evict(self, entries: Entries) -> Tensor:
        """Return the slot (R, H) that the next token takes in full rows (R, H, budget, ...).

        Other entries may change in place.
        """

    def new_entries(self, key: Tensor, value: Tensor) -> Entries:
        """Return the entries of new tokens, (B, H, Q, ...)."""
        return {"keys": key.detach(), "values": value.detach()}

    def bias(self, entries: Entries) -> Tensor | None:
        """Return what the rule adds to the logits of each entry, (B, H, N), or None."""
        return None

    def observe(self, entries: Entries, query: Tensor, mask: Tensor | None, scale: float) -> None:
        """Learn from the queries (B, H G, Q, D) which entries matter; `mask` as attention has it."""

    # The order of events.

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return the new keys and values, (B, H, Q, D); the keys are marked for `attend`."""
        if key_states.shape[2] == 0:
            raise UserError("the prompt has no token that this cache has not seen; pass a longer prompt")
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        elif len(self.count) not in (0, key_states.shape[0]):
            raise UserError(
                f"the cache holds {len(self.count)} rows, the new tokens have {key_states.shape[0]}; "
                "use a new cache for another batch"
            )
        self.seen += key_states.shape[2]
        self.waiting = True
        # A view carries the mark, so that no tensor refers to the layer that stores it.
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
        attention: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    ) -> Tensor:
        """Return the attention of the new queries over entries and new tokens; store the latter.

        Args:
            query: (B, H G, Q, D).
            key, value: (B, H, Q, D) of the new tokens.
            mask: (B, 1, Q, Q) bool of the new tokens, True = visible. None is causal.
            scale: the factor of q . k in the logits.
            attention: (keys, values, mask) -> output; mask is None, bool or added to the logits.
        """
        self.waiting = False
        new = self.new_entries(key, value)
        padding = None if mask is None else ~mask[:, 0, -1]
        if padding is not None:
            # The last row of a causal mask hides nothing but padding.
            if bool(padding.all()):
                raise UserError(
                    "the attention mask has no token beyond those that this cache has seen; "
                    "pass a longer prompt, and its whole mask"
                )
            padding = padding if bool(padding.any()) else None
        if len(self.count) and query.shape[2] == 1 and padding is None:
            return self._attend_one(query, new, scale, attention)
        return self._attend_many(query, new, padding, mask, scale, attention)

    def _attend_one(self, query: Tensor, new: Entries, scale: float, attention: Callable[..., Tensor]) -> Tensor:
        self._add(new)
        entries = self.load()
        length = self.keys.shape[2]
        mask = None
        if not bool((self.count == length).all()):
            mask = self._occupied(length)[:, :, None, :]
        mask = self._with_bias(mask, entries, query)
        output = attention(entries["keys"], entries["values"], mask)
        self.observe(entries, query, mask, scale)
        return output

    def _add(self, new: Entries) -> None:
        """Store one more token a row."""
        length = self.keys.shape[2]
        slots = self.count[:, None, None].to(self.keys.device).expand(-1, self.keys.shape[1], 1)
        if length < self.budget:
            entries = concatenated(self.load(), new)
            if not bool((self.count == length).all()):
                # Shorter rows have free slots before the last one.
                write(entries, slots, new)
            self.save(entries)
        else:
            full = self.count == self.budget
            rows: Rows = ALL_ROWS if bool(full.all()) else full.nonzero()[:, 0].to(self.keys.device)
            if bool(full.any()):
                slots = slots.clone()
                slots[rows, :, 0] = self._evict_in(rows, full)
            write(self.load(), slots, new)
        self.count = (self.count + 1).clamp_max(self.budget)

    def _evict_in(self, rows: Rows, full: Tensor) -> Tensor:
        """Return the freed slot (R, H) of full rows."""
        entries = {name: x[rows] for name, x in self.load().items()}
        slots = self.evict(entries)
        if not isinstance(rows, slice):
            # Indexing by a tensor copied the rows.
            for name, x in self.load().items():
                x[rows] = entries[name]
        return slots

    def _attend_many(
        self,
        query: Tensor,
        new: Entries,
        padding: Tensor | None,
        mask: Tensor | None,
        scale: float,
        attention: Callable[..., Tensor],
    ) -> Tensor:
        entries, occupied = new, None if padding is None else ~padding[:, None, :]
        if len(self.count):
            held = self.load()
            length, tokens = self.keys.shape[2], query.shape[2]
            entries = concatenated(held, new)
            held_BHL = self._occupied(length)
            if padding is not None or not bool(held_BHL.all()):
                new_BHQ = torch.ones_like(held_BHL[..., :1]).expand(-1, -1, tokens) if occupied is None else occupied
                occupied = torch.cat([held_BHL, new_BHQ.expand(-1, held_BHL.shape[1], -1)], -1)
            if mask is None:
                mask = query.new_ones(tokens, tokens, dtype=torch.bool).tril()[None, None]
            # Each query sees all entries that the cache holds, and the new tokens up to its own.
            shape = (len(held_BHL), held_BHL.shape[1], tokens, -1)
            mask = torch.cat([held_BHL[:, :, None, :].expand(*shape), mask.expand(*shape)], -1)
        mask = self._with_bias(mask, entries, query)
        output = attention(entries["keys"], entries["values"], mask)
        self.observe(entries, query, mask, scale)
        self.fit(entries, occupied)
        return output

    def _occupied(self, length: int) -> Tensor:
        """Return which entries hold a token, (B, 1, L)."""
        return (torch.arange(length) < self.count[:, None, None]).to(self.keys.device)

    def _with_bias(self, mask: Tensor | None, entries: Entries, query: Tensor) -> Tensor | None:
        """Return the mask for all H G query heads, plus the bias of the rule, if there is one."""
        bias = self.bias(entries)
        groups = query.shape[1] // entries["keys"].shape[1]
        if bias is not None:
            bias = bias[:, :, None, :].to(query.dtype)
            # The least number instead of minus infinity: rows of padding see nothing, and 0 / 0
            # would spread from them.
            mask = bias if mask is None else torch.where(mask, bias, torch.finfo(query.dtype).min)
        if mask is not None and mask.shape[1] > 1:
            mask = mask.repeat_interleave(groups, 1)
        return mask

    def fit(self, entries: Entries, occupied: Tensor | None) -> None:
        """Store (B, H, N, ...) entries, after `compress` if they are above the budget.

        Args:
            entries: held and new.
            occupied: (B, 1, N), False = padding; None if there is none.
        """
        batch, _, length = entries["keys"].shape[:3]
        if occupied is None:
            above = length > self.budget
            self.count = torch.full((batch,), min(length, self.budget))
            self.compressed = torch.full((batch,), above)
            # A copy: keys and values may be parts of a larger tensor of the model.
            self.save(self.compress(entries) if above else {name: x.clone() for name, x in entries.items()})
            return
        parts = []
        for row, tokens in enumerate(occupied[:, 0].cpu()):
            part = {name: x[row : row + 1, :, tokens.to(x.device)] for name, x in entries.items()}
            parts.append(self.compress(part) if int(tokens.sum()) > self.budget else part)
        counts = occupied[:, 0].sum(-1).cpu()
        if not bool(counts.all()):
            raise UserError(f"row {int(counts.argmin())} of the attention mask has no token")
        self.compressed = counts > self.budget
        self.count = counts.clamp_max(self.budget)
        self.save({name: padded([part[name] for part in parts]) for name in entries})

    def load(self) -> Entries:
        """Return the entries, (B, H, L, ...)."""
        return {name: getattr(self, name) for name in self.fields}

    def save(self, entries: Entries) -> None:
        """Store the entries, (B, H, L, ...)."""
        for name, x in entries.items():
            setattr(self, name, x)

    def held_bytes(self) -> int:
        """Return the bytes of all tensors that the layer holds."""
        storages = {x.untyped_storage().data_ptr(): x.untyped_storage() for x in vars(self).values() if _stored(x)}
        return sum(storage.nbytes() for storage in storages.values())

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
        self.count, self.compressed = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
        self.waiting = self.is_initialized = False

    def select_rows(self, index: Tensor) -> None:
        """Replace the rows by those at an index (B',)."""
        if len(self.count):
            self.save({name: x.index_select(0, index.to(x.device)) for name, x in self.load().items()})
            self.count, self.compressed = self.count[index.cpu()], self.compressed[index.cpu()]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the rows for beam search."""
        self.select_rows(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows only."""
        self.select_rows(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self.select_rows(torch.arange(len(self.count)).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Raise a UserError: evicted entries cannot come back."""
        raise UserError("a cache with a budget cannot take tokens back; decode without an assistant model")


def padded(parts: list[Tensor]) -> Tensor:
    """Return rows (1, H, n, ...) of different n as one tensor (B, H, max n, ...), then zeros."""
    longest = max(part.shape[2] for part in parts)
    rows = parts[0].new_zeros(len(parts), parts[0].shape[1], longest, *parts[0].shape[3:])
    for row, part in zip(rows, parts, strict=True):
        row[:, : part.shape[2]] = part[0]
    return rows


def _stored(x: object) -> bool:
    return isinstance(x, Tensor) and x.dim() > 1


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

    def held_bytes(self) -> int:
        """Return the bytes of all tensors that the cache holds between two forward passes."""
        return sum(layer.held_bytes() for layer in self.layers)

    def update_conv_state(self, *args: Any, **kwargs: Any) -> Tensor:
        """Raise a UserError: the model has a layer without keys and values."""
        raise UserError(f"{type(self).__name__} is for models whose layers are all attention; this model has others")

    update_recurrent_state = update_conv_state


def check_budget(budget: object, least: int, reason: str) -> int:
    """Return the budget if it is an int of at least `least`, else raise a UserError."""
    if isinstance(budget, bool) or not isinstance(budget, int):
        raise UserError(f"budget must be a whole number of entries, not {quoted(budget)}")
    if budget < least:
        raise UserError(f"budget {budget} is below {least}: {reason}")
    return budget


def check_share(name: str, share: object) -> float:
    """Return a share if it is a number between 0 and 1, both excluded, else raise a UserError."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise UserError(f"{name} must be between 0 and 1, not {quoted(share)}")
    return float(share)
