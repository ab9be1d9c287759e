"""The loss of each example for each problem type, by the conventions of transformers.

Axes: B batch, C labels.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from rmaat.attention.precision import at_least_float32
from rmaat.errors import UserError
from rmaat.problems import MULTI_LABEL, REGRESSION


def example_losses(
    problem_type: str,
    logits_BC: Tensor,
    labels: Tensor,
    label_std: float = 1.0,
    smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the loss of each example, (B,). Its mean is the loss of transformers for the problem type.

    | problem type | labels | loss |
    |---|---|---|
    | single_label_classification | (B,) ids | cross-entropy |
    | multi_label_classification | (B, C) in 0 .. 1 | mean binary cross-entropy over the labels |
    | regression | (B,), or (B, C) | mean over C of ((logit - label) / label_std)^2 |

    Args:
        problem_type: one of `rmaat.problems.PROBLEM_TYPES` but 'next_token_prediction', whose losses the
            segment step computes.
        logits_BC: the model's; for regression in the unit of the labels.
        labels: see above.
        label_std: the unit of a regression's loss.
        smoothing: share of each target that is spread over all classes (arXiv 1512.00567); for
            classes.
        weights: (C,) of the classes, or (2, C) of absent and present labels; None means 1.
    """
    if problem_type == REGRESSION:
        differences_BC = logits_BC - labels.to(logits_BC).view_as(logits_BC)
        return (differences_BC / label_std).square().mean(1)
    if problem_type == MULTI_LABEL:
        logits_BC = at_least_float32(logits_BC)
        labels_BC = labels.to(logits_BC)
        losses_BC = binary_cross_entropy_with_logits(logits_BC, labels_BC, reduction="none")
        if weights is not None:
            absent_C, present_C = weights.to(logits_BC)
            losses_BC = losses_BC * (absent_C + (present_C - absent_C) * labels_BC)
        return losses_BC.mean(1)
    losses_B = cross_entropy(logits_BC, labels, reduction="none", label_smoothing=smoothing)
    return losses_B if weights is None else losses_B * weights.to(losses_B)[labels]


def check_labels(problem_type: str, labels: Tensor, batch: int, num_labels: int) -> None:
    """Raise `UserError` unless labels suit the problem type, see `example_losses`."""
    if problem_type == REGRESSION:
        shapes = [(batch, num_labels), *([(batch,)] if num_labels == 1 else [])]
        if labels.shape not in shapes or labels.is_complex():
            raise UserError(f"labels of a regression must be {shapes[-1]} numbers, not {tuple(labels.shape)}")
        if not labels.isfinite().all():
            raise UserError("labels of a regression must be finite")
        return
    if problem_type == MULTI_LABEL:
        if labels.shape != (batch, num_labels):
            raise UserError(
                f"labels of multi_label_classification must be ({batch}, {num_labels}) ones and zeros, "
                f"not {tuple(labels.shape)}"
            )
        # Written so that a NaN is refused too.
        if not ((labels >= 0) & (labels <= 1)).all():
            raise UserError("labels of multi_label_classification must be from 0 to 1")
        return
    if labels.shape != (batch,) or labels.is_floating_point():
        remedy = "; other labels need a config with problem_type" if labels.is_floating_point() else ""
        raise UserError(f"labels must be ({batch},) integers, not {tuple(labels.shape)} {labels.dtype}{remedy}")
    lowest, highest = torch.stack([labels.amin(), labels.amax()]).tolist()
    if lowest < 0 or highest >= num_labels:
        bad = lowest if lowest < 0 else highest
        raise UserError(f"labels holds {bad}; num_labels {num_labels} allows 0 to {num_labels - 1}")
