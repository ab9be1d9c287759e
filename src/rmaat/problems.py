"""The problem types: what the labels of an example are. The names are those of transformers.

The last one is this project's: transformers has no name for it. What a type means for a room is in
one file there: `tasks/labels.py` (columns of files), `models/losses.py` (losses),
`training/problems/` (metrics, predictions, figures, baselines). This module has what the settings
need, and does not import torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
NEXT_TOKEN = "next_token_prediction"
"""The id that follows some tokens of an example, of a causal model: answers at many positions.

It is neither the objective 'causal', which asks for the id after every token, nor the task of
`RmaatForTokenClassification`, which is a class of the token itself.
"""

IGNORED = -100
"""The label of a token after which nothing is asked, as in PyTorch and transformers."""


@dataclass(frozen=True)
class ProblemSettings:
    """The settings that a problem type allows.

    Attributes:
        metrics: the metrics of the best checkpoint, the first one being the usual one. True means
            that a larger value is better.
        excluded: settings without a meaning, each with the value that turns it off.
        reason: why they have none.
        recipe: a recipe with settings for one's own documents; None if they cannot have such labels.
    """

    metrics: Mapping[str, bool]
    recipe: str | None = None
    excluded: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


PROBLEM_SETTINGS: dict[str, ProblemSettings] = {
    SINGLE_LABEL: ProblemSettings({"accuracy": True, "loss": False, "f1_macro": True, "auc": True}, "files"),
    MULTI_LABEL: ProblemSettings(
        {"f1_micro": True, "loss": False, "f1_macro": True, "exact_match": True, "auc": True},
        "files_multi_label",
        {"label_smoothing_factor": 0},
        "needs one class for each example",
    ),
    REGRESSION: ProblemSettings(
        {"mae": False, "loss": False, "rmse": False, "r2": True, "pearson": True},
        "files_regression",
        {"label_smoothing_factor": 0, "class_weights": "none", "calibration": False, "curriculum": False},
        "needs classes",
    ),
    NEXT_TOKEN: ProblemSettings(
        {"accuracy": True, "loss": False},
        excluded={
            "label_smoothing_factor": 0,
            "class_weights": "none",
            "segment_loss_weight": 0,
            "masked_loss_weight": 0,
            "calibration": False,
            "pooled_norm": False,
            "classifier_hidden_size": None,
            "ngram_size": None,
            "two_towers": False,
        },
        reason="needs a classifier of whole examples",
    ),
}

PROBLEM_TYPES = tuple(PROBLEM_SETTINGS)

FILE_PROBLEM_TYPES = tuple(name for name, problem in PROBLEM_SETTINGS.items() if problem.recipe is not None)
"""The types of labels that a column of one's own files can hold."""

BEST_METRICS = tuple(dict.fromkeys(name for problem in PROBLEM_SETTINGS.values() for name in problem.metrics))
"""The metrics of all problem types."""
