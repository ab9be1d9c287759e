"""The models as Hugging Face classes.

- `segment.py`: the segment step, which computes one segment; `segment_state.py`: its inputs and its state.
- `recurrent.py`: `RmaatModel`, the recurrence over all segments of a sequence.
- `pretrained.py`, `head.py`: the base classes of all models, and of those with a head.
- `retention.py`: the retention factors of a batch.
- `classification.py`: `RmaatForSequenceClassification`, with a classifier on top.
- `masked_lm.py`: `RmaatForMaskedLM`, which predicts masked tokens or values.
- `causal_lm.py`: `RmaatForCausalLM`, which predicts each next token; its state is in
  `causal_cache.py`.
- `token_classification.py`: `RmaatForTokenClassification`, which gives each token a class.

Importing this package registers the classes with the Auto classes of transformers.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from rmaat.models.causal_cache import RmaatCache
from rmaat.models.causal_lm import RmaatCausalLMOutput, RmaatForCausalLM
from rmaat.models.classification import RmaatClassifierOutput, RmaatForSequenceClassification
from rmaat.models.configuration import RmaatConfig
from rmaat.models.masked_lm import RmaatForMaskedLM, RmaatMaskedLMOutput
from rmaat.models.recurrent import RmaatModel, RmaatOutput
from rmaat.models.token_classification import RmaatForTokenClassification, RmaatTokenClassifierOutput

AutoConfig.register(RmaatConfig.model_type, RmaatConfig)
AutoModel.register(RmaatConfig, RmaatModel)
AutoModelForCausalLM.register(RmaatConfig, RmaatForCausalLM)
AutoModelForMaskedLM.register(RmaatConfig, RmaatForMaskedLM)
AutoModelForSequenceClassification.register(RmaatConfig, RmaatForSequenceClassification)
AutoModelForTokenClassification.register(RmaatConfig, RmaatForTokenClassification)

__all__ = [
    "RmaatCache",
    "RmaatCausalLMOutput",
    "RmaatClassifierOutput",
    "RmaatConfig",
    "RmaatForCausalLM",
    "RmaatForMaskedLM",
    "RmaatForSequenceClassification",
    "RmaatForTokenClassification",
    "RmaatMaskedLMOutput",
    "RmaatModel",
    "RmaatOutput",
    "RmaatTokenClassifierOutput",
]
