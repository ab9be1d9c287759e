"""The loss of the labels in training. Evaluations have the plain cross-entropy.

Axes: B batch, C classes, T segments, E examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from rmaat.models.classification import RmaatClassifierOutput


@dataclass(frozen=True)
class LabelLoss:
    """Cross-entropy with smoothed labels, weights of classes, and a loss after every segment.

    With smoothing s and the label y, an example has the loss -(1 - s) log p_y - s / C sum_c log p_c
    (arXiv 1512.00567), times the weight of class y. The loss of a batch is the mean over its
    examples, whose weights are 1 on average over the training part.

    Attributes:
        smoothing: s.
        class_weights: (C,) float32, or None if all are 1.
        segment_weight: weight of the mean of the losses after each segment of an example.
        tokens_per_segment: tokens or values of a segment.
    """

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
            inputs: labels (B,) and attention_mask (B, N).
        """
        labels_B = inputs["labels"]
        assert outputs.logits is not None
        loss = self._of_examples(outputs.logits, labels_B).mean()
        if self.segment_weight == 0:
            return loss
        logits_BTC = outputs.segment_logits
        assert logits_BTC is not None
        segments_B1 = -(-inputs["attention_mask"].sum(1, keepdim=True) // self.tokens_per_segment)
        # Entries after an example's last segment repeat it, and have no share in its mean.
        used_BT = torch.arange(logits_BTC.shape[1], device=labels_B.device) < segments_B1
        labels_BT = labels_B[:, None].expand(used_BT.shape)
        losses_BT = self._of_examples(logits_BTC.flatten(0, 1), labels_BT.flatten()).view_as(labels_BT)
        return loss + self.segment_weight * (losses_BT * used_BT / segments_B1).sum(1).mean()

    def _of_examples(self, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        losses_B = cross_entropy(logits_BC, labels_B, reduction="none", label_smoothing=self.smoothing)
        if self.class_weights is None:
            return losses_B
        return losses_B * torch.from_numpy(self.class_weights).to(losses_B)[labels_B]


def balanced_weights(labels_E: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Return weights by which all classes have the same share of the loss, (C,) float32.

    The weight of a class with n of E examples is E / (C n), where C counts the classes that occur;
    'balanced' in scikit-learn. A class that does not occur has the weight 0.
    """
    counts_C = np.bincount(labels_E, minlength=classes)
    shares_C = len(labels_E) / (np.count_nonzero(counts_C) * np.maximum(counts_C, 1))
    return np.where(counts_C > 0, shares_C, 0).astype(np.float32)
