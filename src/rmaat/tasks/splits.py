"""Keep parts apart: drop examples that repeat another part, and hold validation out of train."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rmaat.tasks.base import SPLITS, Part, Row

Key = Callable[[Row], bytes]
"""A function whose value is equal for equal examples, and in practice for no others."""

HELD_OUT = 10
"""One in so many examples of each class is held out."""


def digest(texts: Sequence[bytes]) -> bytes:
    """Return 16 bytes that are equal for equal texts, and in practice for no others."""
    lengths = ",".join(str(len(text)) for text in texts).encode()
    return hashlib.blake2b(b"".join([lengths, b":", *texts]), digest_size=16).digest()


def repeated(digests: Iterable[bytes], elsewhere: Collection[bytes]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return two masks (B,): examples that are `elsewhere`, and others that repeat one before."""
    seen: set[bytes] = set()
    in_other, again = [], []
    for one in digests:
        in_other.append(one in elsewhere)
        again.append(not in_other[-1] and one in seen)
        seen.add(one)
    return np.array(in_other, bool), np.array(again, bool)


def repetition_notes(in_other: NDArray[np.bool_], again: NDArray[np.bool_], what: str) -> list[str]:
    """Return the counts of `repeated` for `Part.notes`; nothing if there are no repetitions."""
    if not (in_other | again).any():
        return []
    return [
        f"dropped {int(in_other.sum()):,} {what} that are in another part too "
        f"and {int(again.sum()):,} that repeat another of train"
    ]


def parts_without_repetitions(
    rows: Callable[[str, list[str]], Iterable[Row]], key: Key, what: str, sizes: Sequence[int]
) -> dict[str, Part]:
    """Return the three parts, each without the rows that a later part has too.

    Args:
        rows: returns the rows of a part, from its name, and may append to the part's notes; called
            twice for validation and test.
        key: is equal for rows that are the same example.
        what: the rows that are dropped, for a note.
        sizes: expected numbers of rows in train, validation and test.
    """
    test, validation = (frozenset(map(key, rows(split, []))) for split in ("test", "validation"))
    later = {"train": test | validation, "validation": test, "test": frozenset[bytes]()}
    parts = {}
    for split, size in zip(SPLITS, sizes, strict=True):
        notes: list[str] = []
        parts[split] = Part(_without(rows(split, notes), later[split], key, what, notes), notes, size)
    return parts


def _without(rows: Iterable[Row], elsewhere: Collection[bytes], key: Key, what: str, notes: list[str]) -> Iterator[Row]:
    """Yield the rows whose key is not `elsewhere`; then append to `notes` how many were dropped."""
    dropped = 0
    for row in rows:
        if elsewhere and key(row) in elsewhere:
            dropped += 1
        else:
            yield row
    if dropped:
        notes.append(f"dropped {dropped:,} {what}")


def held_out(
    labels: NDArray[np.int64], usable: NDArray[np.bool_], seed: int, per_class: int | None = None
) -> NDArray[np.bool_]:
    """Return a mask (B,) of held-out examples: `per_class` usable ones of each class, or a tenth.

    Of a class with two or more usable examples at least one is held out.
    """
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels[usable]):
        candidates = rng.permutation(np.flatnonzero(usable & (labels == label)))
        tenth = max(len(candidates) // HELD_OUT, min(1, len(candidates) - 1))
        chosen[candidates[: tenth if per_class is None else per_class]] = True
    return chosen
