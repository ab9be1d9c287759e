"""Examples of validation and test that the model cannot tell from a training example.

Equal texts are dropped from train when the files are read. Truncation and the tokenizer can make
different texts equal, which shows only in the data set.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from datasets import Dataset, DatasetDict

from rmaat.tasks.base import SPLITS
from rmaat.tasks.collate import lengths
from rmaat.tasks.reader import TokenReader
from rmaat.tasks.splits import digest


def equal_inputs(data: DatasetDict, columns: Sequence[str], limit: int, tokenised: bool) -> dict[str, int]:
    """Return the number of examples that equal a training example, by part, without zeros.

    Args:
        data: all parts.
        columns: those of the token ids.
        limit: the length at which sequences are truncated.
        tokenised: whether a tokenizer made the ids; bytes of different texts differ.
    """

    def digests(part: Dataset) -> Iterator[bytes]:
        return _comparable_digests(part, columns, limit, tokenised)

    held_out = {part: list(digests(data[part])) for part in SPLITS[1:]}
    all_held_out = set().union(*held_out.values())
    # Keep only the shared digests of train, which may have many examples.
    shared = {digest for digest in digests(data["train"]) if digest in all_held_out}
    counts = {part: sum(digest in shared for digest in of_part) for part, of_part in held_out.items()}
    return {part: count for part, count in counts.items() if count}


def _comparable_digests(part: Dataset, columns: Sequence[str], limit: int, tokenised: bool) -> Iterator[bytes]:
    """Yield the digests of the examples that may equal one of a different text.

    They are the truncated examples or, with a tokenizer, all examples.
    """
    chosen = np.full(len(part), tokenised)
    for column in columns:
        chosen |= lengths(part, column) == limit
    reader = TokenReader(part)
    for rows in np.array_split(np.flatnonzero(chosen), 1 + len(part) // 1024):
        for example in reader.__getitems__(rows.tolist()):
            yield digest([example[column].tobytes() for column in columns])
