"""The models as Hugging Face classes. Importing this registers them with the Auto classes of transformers."""

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
