"""A curriculum over the number of segments: which examples are short, and when longer ones are allowed.

Axis: E examples of one part.
"""

from dataclasses import dataclass

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.training.data import RunData, drawn


@dataclass(frozen=True)
class Curriculum:
    """The segments of a run's examples, and the rule by which their maximum rises.

    Attributes:
        train_segments: (E,) int64, the number of segments of each training example.
        validation_segments: (E,) int64, that of each validation example used during training, in the order of evaluation.
        threshold: accuracy at which the maximum rises, in (0, 1].
    """

    train_segments: NDArray[np.int64]
    validation_segments: NDArray[np.int64]
    threshold: float

    @classmethod
    def of(cls, source: RunData, data: DatasetDict) -> "Curriculum":
        """Return the curriculum of a run over its data.

        Raises:
            UserError: if all training examples have the same number of segments, or no validation example is as short as the
                shortest of them.
        """
        run = source.run
        # The task's segments, so that a model that reads them all at once has the same curriculum.
        span = source.info.segment_tokens or run.segment_span

        def segments(part: Dataset) -> NDArray[np.int64]:
            return -(-source.lengths(part) // span)

        # Evaluation goes by falling length.
        validation_segments = np.sort(segments(drawn(data["validation"], run.eval_examples, run.data_seed)))[::-1]
        curriculum = cls(segments(data["train"]), validation_segments, run.curriculum_threshold)
        lowest, highest = curriculum.lowest, int(curriculum.train_segments.max())
        if lowest == highest:
            raise UserError(
                f"curriculum needs examples with different numbers of segments, but each training example of {run.dataset} has "
                f"{lowest}; raise num_segments, or set curriculum to false"
            )
        if validation_segments[-1] > lowest:
            raise UserError(
                f"curriculum begins with {lowest} segment(s), but each validation example of {run.dataset} has "
                f"{validation_segments[-1]} or more; raise eval_examples, or set curriculum to false"
            )
        return curriculum

    @property
    def lowest(self) -> int:
        """The maximum at the beginning: the fewest segments of a training example."""
        return int(self.train_segments.min())

    def accuracy(self, right_E: NDArray[np.bool_], level: int) -> float:
        """Return the share of right answers among the validation examples of at most `level` segments.

        Args:
            right_E: (E,), whether each answer is right, in the order of evaluation.
            level: the maximum.
        """
        return float(right_E[self.validation_segments <= level].mean())

    def after(self, level: int, accuracy: float) -> int:
        """Return the maximum that follows `level`: itself below the threshold, else half as much again.

        It reaches at least the next number of segments that the training part has, and at most the largest.
        """
        longer = self.train_segments[self.train_segments > level]
        if accuracy < self.threshold or not len(longer):
            return level
        return int(min(max(longer.min(), level * 3 // 2), longer.max()))
