"""RMAAT: transformers on very long sequences in the memory of one short segment.

Names are imported on first use, so that the command line's help does not wait for PyTorch. The
import of this package is enough for the Auto classes of transformers to know the models.
"""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from rmaat import auto_classes

if TYPE_CHECKING:
    from rmaat.api import predict, train
    from rmaat.models import (
        RmaatConfig,
        RmaatForCausalLM,
        RmaatForMaskedLM,
        RmaatForSequenceClassification,
        RmaatForTokenClassification,
        RmaatModel,
    )

__version__ = "0.1.0"
__all__ = [
    "RmaatConfig",
    "RmaatForCausalLM",
    "RmaatForMaskedLM",
    "RmaatForSequenceClassification",
    "RmaatForTokenClassification",
    "RmaatModel",
    "predict",
    "train",
]


auto_classes.register()


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = "rmaat.api" if name in ("predict", "train") else "rmaat.models"
        with warnings.catch_warnings():
            # tqdm's advice about notebook widgets, which the bars here do not use.
            warnings.filterwarnings("ignore", "IProgress not found")
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'rmaat' has no attribute '{name}'")
