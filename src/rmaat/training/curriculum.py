"""A curriculum over the number of segments.

Training begins with the shortest examples. The maximum number of segments rises with the accuracy
on validation examples up to that maximum.

Axis: E examples of one part.
"""

from dataclasses import dataclass

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.training.data import RunData, draw_examples


@dataclass(frozen=True)
class Curriculum:
    """The numbers of segments of a run's examples, and the rule by which their maximum rises.

    Attributes:
        train_segments: (E,) int64, the number of segments of each training example.
        validation_segments: (E,) int64, the number of segments of each validation example used
            during training, in the order of evaluation.
        threshold: accuracy at which the maximum rises, in (0, 1].
    """

    train_segments: NDArray[np.int64]
    validation_segments: NDArray[np.int64]
    threshold: float

    @classmethod
    def of(cls, source: RunData, data: DatasetDict) -> "Curriculum":
        """Return the curriculum of a run over its data.

        Raises:
            UserError: if all training examples have the same number of segments, or no validation
                example is as short as the shortest of them.
        """
        run = source.run
        # Prefer the task's segments: then a model that reads a sequence as a whole has the same
        # curriculum as one that reads segments.
        tokens_per_segment = source.info.segment_tokens or run.tokens_per_segment

        def segments(part: Dataset) -> NDArray[np.int64]:
            return -(-source.lengths(part) // tokens_per_segment)

        # Sort by falling length, as `RunData.longest_first` orders the examples of an evaluation.
        validation_segments = np.sort(segments(draw_examples(data["validation"], run.eval_examples, run.data_seed)))[
            ::-1
        ]
        curriculum = cls(segments(data["train"]), validation_segments, run.curriculum_threshold)
        lowest, highest = curriculum.lowest, int(curriculum.train_segments.max())
        if lowest == highest:
            raise UserError(
                "curriculum needs examples with different numbers of segments, but each training "
                f"example of {run.dataset} has {lowest}; raise num_segments, or set curriculum "
                "to false"
            )
        if validation_segments[-1] > lowest:
            raise UserError(
                f"curriculum begins with {lowest} segment(s), but each validation example of "
                f"{run.dataset} has {validation_segments[-1]} or more; raise eval_examples, or set "
                "curriculum to false"
            )
        return curriculum

    @property
    def lowest(self) -> int:
        """The initial maximum: the fewest segments of a training example."""
        return int(self.train_segments.min())

    def accuracy(self, correct_E: NDArray[np.bool_] | NDArray[np.float64], level: int) -> float:
        """Return the accuracy on the validation examples of at most `level` segments.

        Args:
            correct_E: (E,), True for a correct answer, or the share of correct answers, in the order of
                evaluation.
            level: the maximum number of segments.
        """
        return float(correct_E[self.validation_segments <= level].mean())

    def after(self, level: int, accuracy: float) -> int:
        """Return the maximum after an evaluation at the maximum `level`.

        Below the threshold the maximum stays. Otherwise it rises by half, at least to the next
        number of segments in the training part and at most to the largest.
        """
        longer = self.train_segments[self.train_segments > level]
        if accuracy < self.threshold or not len(longer):
            return level
        return int(min(max(longer.min(), level * 3 // 2), longer.max()))
