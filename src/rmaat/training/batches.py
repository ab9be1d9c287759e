"""The order of the training examples, and their random changes.

A sampler yields visits. Visit i + p E is example i in pass p over the E examples. What happens to an
example at random depends on its visit, so it is the same in a resumed run and in any process.

Axes: E examples, I batches, G numbers of segments, L levels of a curriculum.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from rmaat.tasks.base import Augmentation
from rmaat.tasks.collate import TOKEN_COLUMNS
from rmaat.tasks.reader import TokenReader

BATCHES_SORTED_TOGETHER = 50
"""More batches give more equal lengths within a batch, but less random batches."""

AUGMENTATION_STREAM = 1
"""The first number of each augmentation's seed. It keeps its draws apart from those of an order."""


class TrainingExamples(Dataset[dict[str, Any]]):
    """The training examples of a reader by their visits, changed at random if there is an augmentation.

    The change depends on the seed and the visit only.

    Args:
        reader: E examples.
        augmentation: a random change of one sequence, or None.
        seed: seed of all draws.
        with_visits: give each example its `visit`.
    """

    def __init__(
        self, reader: TokenReader, augmentation: Augmentation | None, seed: int, with_visits: bool = False
    ) -> None:
        self._reader = reader
        self._augmentation = augmentation
        self._seed = seed
        self._with_visits = with_visits

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, visit: int) -> dict[str, Any]:
        return self.__getitems__([visit])[0]

    def __getitems__(self, visits: Sequence[int]) -> list[dict[str, Any]]:
        """Return the examples of a batch; torch's loader calls this once for each batch."""
        passes_B, indices_B = np.divmod(np.asarray(visits, np.int64), len(self))
        examples = self._reader.__getitems__(indices_B.tolist())
        if self._augmentation is not None:
            for example, number, index in zip(examples, passes_B.tolist(), indices_B.tolist(), strict=True):
                rng = np.random.default_rng([AUGMENTATION_STREAM, self._seed, number, index])
                for column in filter(example.__contains__, TOKEN_COLUMNS):
                    example[column] = self._augmentation(rng, example[column])
        if self._with_visits:
            for example, visit in zip(examples, visits, strict=True):
                example["visit"] = visit
        return examples


class GroupedByLength(Sampler[int]):
    """A random order in which the examples of a batch have similar lengths, to save padding.

    Examples are shuffled, sorted by length within groups of 50 batches, and the batches are shuffled
    again. The order depends on the seed and the epoch only, so that a resumed run has the same one.
    The few examples that do not fill a batch are left out of the epoch; they differ from epoch to
    epoch.

    Args:
        lengths: (E,), the length of each example.
        batch_size: examples of a batch, of all processes together.
        seed: seed of all draws.
        epoch: returns the current epoch; called at the start of each pass.
    """

    def __init__(self, lengths: NDArray[np.integer], batch_size: int, seed: int, epoch: Callable[[], int]) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths) // self._batch_size * self._batch_size

    def __iter__(self) -> Iterator[int]:
        epoch = self._epoch()
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        order = torch.randperm(len(self._lengths), generator=generator).numpy()
        # Sort within groups of batches, so that neighbours have similar lengths.
        size = self._batch_size * BATCHES_SORTED_TOGETHER
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        order = np.concatenate([group[np.argsort(self._lengths[group], kind="stable")] for group in groups])
        # Shuffle whole batches, so that training does not go from short to long.
        batches_KB = order[: len(self)].reshape(-1, self._batch_size)
        shuffled_KB = batches_KB[torch.randperm(len(batches_KB), generator=generator).numpy()]
        return iter((shuffled_KB.reshape(-1) + epoch * len(self._lengths)).tolist())


class ConsecutiveSequences(Sampler[int]):
    """An order in which row r of a batch goes on where row r of the batch before it ended.

    The texts come in a random order, each from its beginning to its end, and are divided evenly among
    the rows; a text at such a border is divided too. The order depends on the seed and the epoch
    only. The few examples that do not fill a batch are left out of the epoch.

    Args:
        later_E: (E,) bool, True if an example goes on where the one before it ended.
        batch_size: examples of a batch, of all processes together.
        seed: seed of all draws.
        epoch: returns the current epoch; called at the start of each pass.
    """

    def __init__(self, later_E: NDArray[np.bool_], batch_size: int, seed: int, epoch: Callable[[], int]) -> None:
        self._texts = np.split(np.arange(len(later_E)), np.flatnonzero(~later_E)[1:])
        self._examples = len(later_E)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = epoch

    def __len__(self) -> int:
        return self._examples // self._batch_size * self._batch_size

    def __iter__(self) -> Iterator[int]:
        epoch = self._epoch()
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._texts))
        examples_E = np.concatenate([self._texts[text] for text in order])
        rows_BK = examples_E[: len(self)].reshape(self._batch_size, -1)
        return iter((rows_BK.T.reshape(-1) + epoch * self._examples).tolist())


class GroupedBySegments(Sampler[int]):
    """Batches in which all examples have the same number of segments.

    Each batch draws its number uniformly from the numbers up to a maximum. Batch i, counted over
    the whole run, depends on the seed and on the maxima of the batches up to i, so that a resumed
    run has the same batches. The examples of one number come in shuffled passes, each example once
    per pass. A pass may begin in the middle of a batch. An epoch has as many batches as the examples
    fill.

    Args:
        segments_E: (E,) int64, the number of segments of each example.
        batch_size: examples of a batch, of all processes together.
        seed: seed of all draws.
        epoch: returns the current epoch; called at the start of each pass of the loader.
        levels: returns the maxima; called for each batch. They are pairs [first batch, maximum from
            that batch on] in the order of their batches. The first pair begins at batch 0.

    Attributes:
        drawn: batches drawn since the beginning of the run. The loader draws some batches ahead of
            training.
    """

    def __init__(
        self,
        segments_E: NDArray[np.int64],
        batch_size: int,
        seed: int,
        epoch: Callable[[], int],
        levels: Callable[[], Sequence[Sequence[int]]],
    ) -> None:
        # Group the examples by their number of segments: one array per number, in rising order.
        self._numbers_G, counts_G = np.unique(segments_E, return_counts=True)
        self._members_G = np.split(np.argsort(segments_E, kind="stable"), np.cumsum(counts_G)[:-1])
        self._examples = len(segments_E)
        self._batch_size = batch_size
        self._batches = len(segments_E) // batch_size
        self._seed = seed
        self._epoch = epoch
        self._levels = levels
        self.drawn = 0

    def __len__(self) -> int:
        return self._batches * self._batch_size

    def __iter__(self) -> Iterator[int]:
        first = self._epoch() * self._batches
        # Draw one random number for each batch since the start of the run, so that batch i does not
        # depend on where the run was resumed.
        batches_I = np.arange(first + self._batches)
        shares_I = np.random.default_rng(self._seed).random(len(batches_I))
        # Repeat the choices of earlier epochs, to find how many examples of each number they used.
        past_I = self._groups(batches_I[:first], shares_I[:first])
        past_G = np.bincount(past_I, minlength=len(self._numbers_G))
        streams_G = [self._stream(g, int(past) * self._batch_size) for g, past in enumerate(past_G)]
        for i in range(first, len(batches_I)):
            self.drawn = i + 1
            # Choose one batch at a time, because the maximum may have risen since the last one.
            (group,) = self._groups(batches_I[i : i + 1], shares_I[i : i + 1])
            yield from itertools.islice(streams_G[group], self._batch_size)

    def _groups(self, batches_I: NDArray[np.int64], shares_I: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the index into `_numbers_G` of each batch's number of segments, (I,).

        Args:
            batches_I: the index of each batch in the run.
            shares_I: a uniform random number in [0, 1) for each batch. It selects among the numbers
                that the batch's maximum allows.
        """
        # The maximum of a batch is that of the last pair that begins at or before it.
        first_L, maximum_L = np.array(self._levels()).T
        maximum_I = maximum_L[np.searchsorted(first_L, batches_I, side="right") - 1]
        allowed_I = np.searchsorted(self._numbers_G, maximum_I, side="right")
        return (shares_I * allowed_I).astype(np.int64)

    def _stream(self, group: int, start: int) -> Iterator[int]:
        """Yield the visits of the examples of one number without end, from position `start` on.

        Each pass over them is another permutation.
        """
        members, number = self._members_G[group], int(self._numbers_G[group])
        first_pass, offset = divmod(start, len(members))
        for index in itertools.count(first_pass):
            order = np.random.default_rng([self._seed, number, index]).permutation(members)
            yield from (order[offset:] + index * self._examples).tolist()
            offset = 0
