"""`RmaatConfig`, the configuration that Hugging Face stores with a model."""

from dataclasses import fields
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from rmaat.errors import UserError, did_you_mean
from rmaat.settings import ModelSettings, without_retired

TRANSFORMERS_KEYS = frozenset(
    {"model_type", "name_or_path", "num_labels", "torch_dtype", "transformers_version", "use_cache"}
)
"""Keys that transformers itself passes or stores beside the fields.

The Trainer of transformers writes use_cache into every config.
"""


class RmaatConfig(ModelSettings, PreTrainedConfig):
    """The settings of an RMAAT model.

    They are the fields of `ModelSettings`, the size of the vocabulary, and the fields that
    transformers stores with every model.

    Args:
        vocab_size: number of token ids.
        num_labels: number of classes.

    Raises:
        ValueError: for an unknown key, with the nearest known one, or if settings contradict
            each other.
    """

    model_type = "rmaat"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["memory", "readout", "associations"]

    vocab_size: int = 256

    def __post_init__(self, **kwargs: Any) -> None:
        known = {f.name for f in fields(type(self))} | TRANSFORMERS_KEYS
        kwargs = without_retired(kwargs, "RmaatConfig")
        for key in kwargs:
            if key not in known and not key.startswith("_") and not hasattr(type(self), key):
                raise UserError(f"RmaatConfig has no setting '{key}'; {did_you_mean(key, known)}")
        super().__post_init__(**kwargs)
        if self.vocab_size < 1:
            raise UserError(f"vocab_size must be >= 1, not {self.vocab_size}")
        if self.num_labels is None or self.num_labels < 2:
            raise UserError(f"num_labels must be >= 2, not {self.num_labels}")
        self.check_model()
        # Store every parameter of the macro model, because a later version may have other defaults
        # and a checkpoint must keep its retention factors.
        self.macro_model = self.astrocyte.to_dict()
