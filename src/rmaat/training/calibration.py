"""Calibration of a trained classifier by a temperature (arXiv 1706.04599).

Axes: E examples, C classes.
"""

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from rmaat.models import RmaatForSequenceClassification
from rmaat.training.metrics import Labels, Logits, log_normaliser

TEMPERATURES = (0.01, 100.0)
"""Bounds of the temperature."""


def fitted_temperature(logits_EC: Logits, labels_E: Labels) -> float:
    """Return the temperature T whose probabilities softmax(logits / T) suit the labels best.

    T minimises the cross-entropy against targets with 1 - 1 / (E + 2) for the label. The rest is
    shared by the other classes (Platt, 1999). With plain labels T would be 0 if all E answers were
    right, although E right answers do not exclude errors. With many examples the difference is
    small.

    Args:
        logits_EC: (E, C), of examples that the model was not trained on.
        labels_E: (E,).

    Returns:
        A number within `TEMPERATURES`.
    """
    logits_EC = logits_EC.astype(np.float64)
    of_label_E = np.take_along_axis(logits_EC, labels_E[:, None], 1)[:, 0]
    error = 1 / (len(labels_E) + 2)
    others_E = (logits_EC.sum(1) - of_label_E) / (logits_EC.shape[1] - 1)
    # The mean logit under the targets. The loss is convex in 1 / T, so it has one minimum in log T.
    target = float(np.mean((1 - error) * of_label_E + error * others_E))

    def loss(log_temperature: float) -> float:
        factor = np.exp(-log_temperature)
        return float(np.mean(log_normaliser(factor * logits_EC)) - factor * target)

    result: Any = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(result.x))


@torch.no_grad()
def divide_logits(model: RmaatForSequenceClassification, temperature: float) -> None:
    """Divide the weights of the last layer, so that the model's logits are divided by `temperature`.

    Answers stay the same, up to rounding.
    """
    for layer in (model.classifier, model.ngrams):
        for parameter in () if layer is None else layer.parameters():
            parameter.div_(temperature)
