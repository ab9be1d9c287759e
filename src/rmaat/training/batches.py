"""The order in which examples are met."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

BATCHES_SORTED_TOGETHER = 50


class GroupedByLength(Sampler[int]):
    """Random order in which the examples of a batch are of like length, so that short ones don't pay for long ones.

    Examples are shuffled, sorted by length within runs of 50 batches, and the batches shuffled again. The order is a function
    of (seed, epoch), so that a resumed run meets the same one. The few examples that do not fill a batch are left out of an epoch,
    others in each.
    """

    def __init__(self, lengths: NDArray[np.integer], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._lengths) // self._batch_size * self._batch_size

    def set_epoch(self, epoch: int) -> None:
        """Called by the loader before each pass."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(len(self._lengths), generator=generator).numpy()
        run = self._batch_size * BATCHES_SORTED_TOGETHER
        runs = [order[start : start + run] for start in range(0, len(order), run)]
        order = np.concatenate([part[np.argsort(self._lengths[part], kind="stable")] for part in runs])
        batches_KB = order[: len(self)].reshape(-1, self._batch_size)
        shuffled_KB = batches_KB[torch.randperm(len(batches_KB), generator=generator).numpy()]
        return iter(shuffled_KB.reshape(-1).tolist())
