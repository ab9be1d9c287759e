"""Entries in slots that all heads of a row fill alike; a new token overwrites an evicted one.

Axes: B batch rows, R some of the rows, H key-value heads, Q new tokens, N entries, K selected ones,
D width of a head.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from rmaat.cache.base import Attention, BudgetLayer, Entries, check_rows, concatenated


def selected(entries: Entries, index: Tensor) -> Entries:
    """Return the entries at an index (R, H, K) into N, (R, H, N, ...) -> (R, H, K, ...)."""
    return {name: torch.take_along_dim(x, _like(index, x), 2) for name, x in entries.items()}


def overwrite(entries: Entries, index: Tensor, new: Entries) -> None:
    """Overwrite the entries at an index (R, H, K) into N by `new`, (R, H, K, ...), in place."""
    for name, x in entries.items():
        x.scatter_(2, _like(index, x).expand_as(new[name]), new[name])


def new_positions(key: Tensor, seen: int) -> Tensor:
    """Return the positions (B, H, Q) int32 of keys (B, H, Q, D), the last of `seen` tokens."""
    batch, heads, tokens = key.shape[:3]
    positions_Q = torch.arange(seen - tokens, seen, dtype=torch.int32, device=key.device)
    return positions_Q.expand(batch, heads, -1)


class SlotLayer(BudgetLayer):
    """One layer whose fields are (B, H, L, ...), L <= budget; row b fills `[b, :, : count[b]]`.

    A prompt is reduced by `compress` after its attention. While decoding, `evict` frees a slot
    before the attention, so that the new token is one of the budget.

    Attributes:
        compressed: (B,) bool on the CPU, rows whose entries are in the order of `compress`.
    """

    compressed: Tensor

    @abstractmethod
    def compress(self, entries: Entries) -> Entries:
        """Return the `budget` entries that stay of (R, H, N, ...) ones, N >= budget."""

    @abstractmethod
    def evict(self, entries: Entries) -> Tensor:
        """Return the slot (R, H) that the next token takes in full rows (R, H, budget, ...).

        The entries are in the order of `compress`, with later tokens in evicted slots. They may
        change in place.
        """

    def attend_one(self, query: Tensor, new: Entries, scale: float, attention: Attention) -> Tensor:
        """Return the attention of one more token a row; arguments as in `attend`."""
        self.add(new)
        entries, length = self.load(), self.keys.shape[2]
        mask = None
        if not bool((self.count == length).all()):
            mask = self.occupied(length)[:, :, None, :]
        mask = self.with_bias(mask, entries, query)
        output = attention(entries["keys"], entries["values"], mask)
        self.observe(entries, query, None, mask, scale)
        return output

    def add(self, new: Entries) -> None:
        """Store one more token a row, (B, H, 1, ...)."""
        length = self.keys.shape[2]
        slots = self.count[:, :, None].to(self.device).repeat(1, self.keys.shape[1], 1)
        if length < self.budget:
            entries = concatenated(self.load(), new)
            if not bool((self.count == length).all()):
                # Shorter rows have free slots before the last one.
                overwrite(entries, slots, new)
            self.save(entries)
        else:
            full = self.count[:, 0] == self.budget
            if bool((full & ~self.compressed).any()):
                # Rows that decoding filled: put their entries in order once.
                rows = (full & ~self.compressed).nonzero()[:, 0].to(self.device)
                self.put(rows, self.compress(self.rows(rows)))
                self.compressed |= full
            if bool(full.all()):
                slots = self.evict(self.load())[..., None]
            elif bool(full.any()):
                rows = full.nonzero()[:, 0].to(self.device)
                entries = self.rows(rows)
                slots[rows, :, 0] = self.evict(entries)
                self.put(rows, entries)
            overwrite(self.load(), slots, new)
        self.count = (self.count + 1).clamp_max(self.budget)

    def rows(self, index: Tensor) -> Entries:
        """Return a copy of some rows, (R,) -> (R, H, L, ...)."""
        return {name: x[index] for name, x in self.load().items()}

    def put(self, index: Tensor, entries: Entries) -> None:
        """Overwrite some rows, (R,), by (R, H, L, ...)."""
        for name, x in self.load().items():
            x[index] = entries[name]

    def fit(self, entries: Entries, occupied: Tensor | None) -> None:
        """Store (B, H, N, ...) entries, after `compress` if a row is above the budget."""
        batch, _, length = entries["keys"].shape[:3]
        if occupied is None:
            if length > self.budget:
                self.save(self.compress(entries))
            else:
                # Copy, because keys and values may be parts of a larger tensor of the model.
                self.save({name: x.clone() for name, x in entries.items()})
            counts = torch.full((batch, 1), length)
        else:
            check_rows(occupied)
            parts = []
            for row, tokens in enumerate(occupied[:, 0]):
                part = {name: x[row : row + 1, :, tokens] for name, x in entries.items()}
                parts.append(self.compress(part) if int(tokens.sum()) > self.budget else part)
            self.save({name: padded([part[name] for part in parts]) for name in entries})
            counts = occupied.sum(-1).cpu()
        self.compressed = counts[:, 0] > self.budget
        self.count = counts.clamp_max(self.budget)

    def load(self) -> Entries:
        """Return the entries, (B, H, L, ...)."""
        return {name: getattr(self, name) for name in self.fields}

    def save(self, entries: Entries) -> None:
        """Store the entries, (B, H, L, ...)."""
        for name, x in entries.items():
            setattr(self, name, x)

    def select_rows(self, index: Tensor) -> None:
        """Replace the rows by those at an index (B',) on the CPU."""
        if len(self.count):
            self.compressed = self.compressed[index]
        super().select_rows(index)


def padded(parts: list[Tensor]) -> Tensor:
    """Return rows (1, H, n, ...) of different n as one tensor (B, H, max n, ...), then zeros."""
    longest = max(part.shape[2] for part in parts)
    rows = parts[0].new_zeros(len(parts), parts[0].shape[1], longest, *parts[0].shape[3:])
    for row, part in zip(rows, parts, strict=True):
        row[:, : part.shape[2]] = part[0]
    return rows


def _like(index: Tensor, x: Tensor) -> Tensor:
    return index[(..., *(None,) * (x.dim() - index.dim()))]
