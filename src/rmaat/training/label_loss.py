"""The loss of the labels in training. Evaluations have the plain loss of `rmaat.models.losses`.

Axes: B batch, C classes, T segments, E examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmaat.models.classification import RmaatClassifierOutput
from rmaat.models.losses import example_losses
from rmaat.problems import SINGLE_LABEL


@dataclass(frozen=True)
class LabelLoss:
    """The loss of a problem type with smoothed labels, weights of classes, and a loss after every segment.

    With smoothing s and the label y, an example has the loss -(1 - s) log p_y - s / C sum_c log p_c
    (arXiv 1512.00567), times the weight of class y. The loss of a batch is the mean over its
    examples, whose weights are 1 on average over the training part.

    Attributes:
        problem_type: one of `rmaat.problems.PROBLEM_TYPES`. That of answers at many positions has the
            loss of the model itself.
        label_std: the unit of a regression's loss.
        smoothing: s, for classes.
        class_weights: (C,) float32, or (2, C) for several labels, or None if all are 1.
        segment_weight: weight of the mean of the losses after each segment of an example.
        tokens_per_segment: tokens or values of a segment.
    """

    problem_type: str = SINGLE_LABEL
    label_std: float = 1.0
    smoothing: float = 0.0
    class_weights: NDArray[np.float32] | None = None
    segment_weight: float = 0.0
    tokens_per_segment: int = 1

    @property
    def plain(self) -> bool:
        """Whether this is the loss of the model itself."""
        return self.smoothing == 0 and self.class_weights is None and self.segment_weight == 0

    def __call__(self, outputs: RmaatClassifierOutput, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of a batch, ().

        Args:
            outputs: the model's, with segment_logits if `segment_weight` is above 0.
            inputs: labels (B,) or (B, C), and attention_mask (B, N).
        """
        labels = inputs["labels"]
        assert outputs.logits is not None
        loss = self._of_examples(outputs.logits, labels).mean()
        if self.segment_weight == 0:
            return loss
        logits_BTC = outputs.segment_logits
        assert logits_BTC is not None
        segments_B1 = -(-inputs["attention_mask"].sum(1, keepdim=True) // self.tokens_per_segment)
        # Entries after an example's last segment repeat it, and have no share in its mean.
        used_BT = torch.arange(logits_BTC.shape[1], device=labels.device) < segments_B1
        labels_BT = labels.repeat_interleave(used_BT.shape[1], 0)
        losses_BT = self._of_examples(logits_BTC.flatten(0, 1), labels_BT).view_as(used_BT)
        return loss + self.segment_weight * (losses_BT * used_BT / segments_B1).sum(1).mean()

    def _of_examples(self, logits_BC: Tensor, labels: Tensor) -> Tensor:
        weights = None if self.class_weights is None else torch.from_numpy(self.class_weights)
        return example_losses(self.problem_type, logits_BC, labels, self.label_std, self.smoothing, weights)
