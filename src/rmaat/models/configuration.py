"""`RmaatConfig`, the configuration that Hugging Face stores with a model."""

import warnings
from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from rmaat.errors import UserError, did_you_mean
from rmaat.models.temperature import check_knots
from rmaat.problems import PROBLEM_TYPES, REGRESSION, SINGLE_LABEL
from rmaat.settings import ModelSettings, without_retired
from rmaat.values import OneOf, Range, checked

TRANSFORMERS_KEYS = frozenset(
    {
        *("attn_implementation", "auto_map", "is_decoder", "model_type", "name_or_path", "num_labels"),
        *("output_attentions", "quantization_config", "tie_word_embeddings", "torch_dtype"),
        *("transformers_version", "use_cache"),
    }
)
"""Keys that transformers itself passes or stores beside the fields.

The Trainer of transformers writes use_cache into every config. It also writes the ids of the
tokenizer's special tokens, whose keys end in `SPECIAL_TOKEN`.
"""

SPECIAL_TOKEN = "_token_id"


ProblemType = Annotated[str, OneOf(PROBLEM_TYPES)] | None
VocabSize = Annotated[int, Range(1, 2**24)]
NumLabels = Annotated[int, Range(1, 2**20)]
Scale = Annotated[float, Range(above=0)]
Threshold = Annotated[float, Range(most=1 - 1e-9, above=0)]


class RmaatConfig(ModelSettings, PreTrainedConfig):
    """The settings of an RMAAT model.

    They are the fields of `ModelSettings`, the size of the vocabulary, and the fields that
    transformers stores with every model.

    Args:
        vocab_size: number of token ids.
        num_labels: number of classes, of labels, or of numbers to predict.
        problem_type: what the labels are, one of `rmaat.problems.PROBLEM_TYPES`. None means
            'regression' if num_labels is 1, and else 'single_label_classification'. Unlike
            transformers, the model never takes it from the type of the labels.
        masked_head: predict the tokens or values at masked positions too, see `RmaatForMaskedLM`.
        temperatures: knots [tokens, temperature] by which a classifier of sequences divides its
            logits, see `rmaat.models.temperature`; null divides by nothing.
        label_threshold: several labels: an answer has the labels with a higher probability.
        label_mean: regression: what is added to the classifier's output, after the factor.
        label_std: regression: the factor of the classifier's output. Logits are in the unit of the
            labels, and the loss is in units of label_std^2.

    Raises:
        ValueError: for an unknown key, with the nearest known one, or if settings contradict
            each other.
    """

    model_type = "rmaat"
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        *("memory", "readout", "associations", "masked_loss", "hidden_states")
    ]

    vocab_size: VocabSize = 256
    masked_head: bool = False
    temperatures: list[list[float]] | None = None
    label_threshold: float = 0.5
    label_mean: float = 0.0
    label_std: float = 1.0
    if TYPE_CHECKING:
        # An argument of the constructor that transformers turns into names of labels.
        num_labels: int = 2

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Return the config of a stored dict; `from_pretrained` calls it for config.json.

        Unlike the constructor it takes unknown keys too, because another version of transformers or
        of this package may have written them. They become attributes, so that they are stored again.

        Args:
            config_dict: the stored keys and values.
            **kwargs: see `PreTrainedConfig.from_dict`.

        Returns:
            The config, or with `return_unused_kwargs` the pair of it and the unused `kwargs`.
        """
        stored = without_retired(config_dict, "config.json")
        unknown = {key: stored.pop(key) for key in cls._unknown_keys(stored)}
        if unknown:
            warnings.warn(
                f"config.json has keys without an effect in this version: {', '.join(sorted(unknown))}", stacklevel=2
            )
        result = super().from_dict(stored, **kwargs)
        config = result[0] if isinstance(result, tuple) else result
        for key, value in unknown.items():
            setattr(config, key, value)
        return result

    @classmethod
    def _unknown_keys(cls, settings: Iterable[str]) -> list[str]:
        """Return the keys that are neither settings nor of transformers."""
        known = {f.name for f in fields(cls)} | TRANSFORMERS_KEYS
        return [
            key
            for key in settings
            if key not in known
            and not key.startswith("_")
            and not key.endswith(SPECIAL_TOKEN)
            and not hasattr(cls, key)
        ]

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs = without_retired(kwargs, "RmaatConfig")
        for key in self._unknown_keys(kwargs):
            known = {f.name for f in fields(type(self))} | TRANSFORMERS_KEYS
            raise UserError(f"RmaatConfig has no setting '{key}'; {did_you_mean(key, known)}")
        # transformers makes a name for each label, so check their number first.
        if kwargs.get("num_labels") is not None:
            checked("num_labels", kwargs["num_labels"], NumLabels)
        try:
            super().__post_init__(**kwargs)
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f"a setting that transformers adds, such as id2label, has a wrong value: {error}"
            ) from error
        for name in self.id2label.values():
            checked("a name in id2label", name, str)
        checked("vocab_size", self.vocab_size, VocabSize)
        checked("num_labels", self.num_labels, NumLabels)
        checked("problem_type", self.problem_type, ProblemType)
        if self.num_labels == 1 and self.problem == SINGLE_LABEL:
            raise UserError(f"num_labels must be at least 2 for problem_type '{SINGLE_LABEL}', not 1")
        checked("masked_head", self.masked_head, bool)
        if self.temperatures is not None:
            check_knots(self.temperatures)
            if self.problem == REGRESSION:
                raise UserError("temperatures are for classes; problem_type 'regression' has none")
        checked("label_threshold", self.label_threshold, Threshold)
        # Numbers that JSON stores without a point are whole.
        self.label_mean = checked("label_mean", self.label_mean, float)
        self.label_std = checked("label_std", self.label_std, Scale)
        self.check_model()
        if self.hidden_act not in ACT2FN:
            raise UserError(f"unknown hidden_act '{self.hidden_act}'; {did_you_mean(self.hidden_act, ACT2FN)}")
        # Store every parameter of the macro model, because a later version may have other defaults
        # and a checkpoint must keep its retention factors.
        self.macro_model = self.astrocyte.to_dict()

    @property
    def problem(self) -> str:
        """The effective problem type."""
        return self.problem_type or (REGRESSION if self.num_labels == 1 else SINGLE_LABEL)
