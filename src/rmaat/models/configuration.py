"""The model's configuration as Hugging Face stores it."""

from dataclasses import fields
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from rmaat.errors import UserError, did_you_mean
from rmaat.settings import ModelSettings, without_retired

BOOKKEEPING = frozenset(
    {"model_type", "name_or_path", "num_labels", "torch_dtype", "transformers_version", "use_cache"}
)
"""Keys that transformers itself passes or stores beside the fields; its Trainer writes use_cache into every config."""


class RmaatConfig(ModelSettings, PreTrainedConfig):
    """Settings of an RMAAT model: those of `ModelSettings`, the vocabulary, and what transformers keeps with a model.

    Args:
        vocab_size: number of token ids.
        num_labels: number of classes.

    Raises:
        ValueError: for an unknown key, naming the nearest known one, or for settings that do not fit together.
    """

    model_type = "rmaat"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["memory", "readout", "associations"]

    vocab_size: int = 256

    def __post_init__(self, **kwargs: Any) -> None:
        known = {f.name for f in fields(type(self))} | BOOKKEEPING
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
        # Stored whole, so that a checkpoint keeps its factors whatever the defaults become.
        self.macro_model = self.astrocyte.to_dict()
