"""Parts that can be trusted: what repeats another part is left out of train, and validation is held out of the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rmaat.tasks.base import Row

Key = Callable[[Row], bytes]
"""What is equal for rows that are the same example, and for no others in practice."""

HELD_OUT = 10
"""One example in so many of each class is held out."""


def digest(texts: Sequence[bytes]) -> bytes:
    """16 bytes that stand for an example's texts: equal for equal texts, and for no others in practice."""
    lengths = ",".join(str(len(text)) for text in texts).encode()
    return hashlib.blake2b(b"".join([lengths, b":", *texts]), digest_size=16).digest()


def repeated(digests: Iterable[bytes], elsewhere: Collection[bytes]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two masks (B,): examples that are `elsewhere` too, and of the others those that repeat an earlier one."""
    seen: set[bytes] = set()
    in_other, again = [], []
    for found in digests:
        in_other.append(found in elsewhere)
        again.append(not in_other[-1] and found in seen)
        seen.add(found)
    return np.array(in_other, bool), np.array(again, bool)


def repetition_notes(in_other: NDArray[np.bool_], again: NDArray[np.bool_], what: str) -> list[str]:
    """What `repeated` found, for `Part.notes`; nothing where it found nothing."""
    if not (in_other | again).any():
        return []
    return [
        f"dropped {int(in_other.sum()):,} {what} that are in another part too "
        f"and {int(again.sum()):,} that repeat another of train"
    ]


def in_later_parts(keys: Callable[[str], Iterable[bytes]]) -> dict[str, frozenset[bytes]]:
    """For each part the keys, given by its name, of the parts whose examples it may not hold."""
    of_test, of_validation = (frozenset(keys(split)) for split in ("test", "validation"))
    return {"train": of_test | of_validation, "validation": of_test, "test": frozenset()}


def without(rows: Iterable[Row], elsewhere: Collection[bytes], key: Key, what: str, notes: list[str]) -> Iterator[Row]:
    """The rows whose key is not `elsewhere`; after the last one `notes` gets how many were dropped, of `what`."""
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
    """A mask (B,) of the examples held out: of each class's usable ones `per_class`, or a tenth.

    A tenth is at least one where the class has two or more.
    """
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels[usable]):
        candidates = rng.permutation(np.flatnonzero(usable & (labels == label)))
        tenth = max(len(candidates) // HELD_OUT, min(1, len(candidates) - 1))
        chosen[candidates[: tenth if per_class is None else per_class]] = True
    return chosen
