"""The models as Hugging Face classes.

- `segment.py`: the segment step, which computes one segment.
- `recurrent.py`: `RmaatModel`, the recurrence over all segments of a sequence.
- `classification.py`: `RmaatForSequenceClassification`, with a classifier on top.
- `masked_lm.py`: `RmaatForMaskedLM`, which predicts masked tokens or values.

Importing this package registers the classes with the Auto classes of transformers.
"""

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from rmaat.models.classification import RmaatClassifierOutput, RmaatForSequenceClassification
from rmaat.models.configuration import RmaatConfig
from rmaat.models.masked_lm import RmaatForMaskedLM, RmaatMaskedLMOutput
from rmaat.models.recurrent import RmaatModel, RmaatOutput

AutoConfig.register(RmaatConfig.model_type, RmaatConfig)
AutoModel.register(RmaatConfig, RmaatModel)
AutoModelForMaskedLM.register(RmaatConfig, RmaatForMaskedLM)
AutoModelForSequenceClassification.register(RmaatConfig, RmaatForSequenceClassification)

__all__ = [
    "RmaatClassifierOutput",
    "RmaatConfig",
    "RmaatForMaskedLM",
    "RmaatForSequenceClassification",
    "RmaatMaskedLMOutput",
    "RmaatModel",
    "RmaatOutput",
]
