"""The models as Hugging Face classes.

- `segment.py`: the segment step, which computes one segment.
- `recurrent.py`: `RmaatModel`, the recurrence over all segments of a sequence.
- `classification.py`: `RmaatForSequenceClassification`, with a classifier on top.

Importing this package registers the classes with the Auto classes of transformers.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from rmaat.models.classification import RmaatClassifierOutput, RmaatForSequenceClassification
from rmaat.models.configuration import RmaatConfig
from rmaat.models.recurrent import RmaatModel, RmaatOutput

AutoConfig.register(RmaatConfig.model_type, RmaatConfig)
AutoModel.register(RmaatConfig, RmaatModel)
AutoModelForSequenceClassification.register(RmaatConfig, RmaatForSequenceClassification)

__all__ = [
    "RmaatClassifierOutput",
    "RmaatConfig",
    "RmaatForSequenceClassification",
    "RmaatModel",
    "RmaatOutput",
]
