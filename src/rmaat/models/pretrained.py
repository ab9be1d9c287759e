"""The base class of all models, through which transformers builds, loads and initialises them."""

import warnings
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from rmaat.models.checks import check_backprop
from rmaat.models.configuration import RmaatConfig


@runtime_checkable
class Initialised(Protocol):
    """A module that sets the initial values of its own parameters."""

    def initialise(self) -> None:
        """Set the initial values of the parameters that are not those of a submodule."""
        ...


class RmaatPreTrainedModel(PreTrainedModel):
    """The base class of `RmaatModel` and of the models with a head."""

    config_class = RmaatConfig
    base_model_prefix = "rmaat"
    main_input_name = "input_ids"

    def __setattr__(self, name: str, value: Any) -> None:
        # The check is here rather than in the property's setter, because nn.Module registers an
        # assigned module before it looks for a property, and would store it with the model.
        if name == "backprop" and value is not None:
            check_backprop(value)
        super().__setattr__(name, value)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Turn replay on, which computes segments again as gradient checkpointing computes layers.

        `TrainingArguments(gradient_checkpointing=True)` comes here. The arguments have no effect. A
        warning says what happened. Truncated gradients stay truncated.
        """
        config = self.config
        if config.truncated_segments is not None:
            effect = "truncated_segments limits the memory already, so gradient checkpointing changes nothing"
        elif config.memory_replay_backprop:
            effect = "memory_replay_backprop computes segments again already, so gradient checkpointing changes nothing"
        else:
            config.memory_replay_backprop = True
            effect = "gradient checkpointing sets memory_replay_backprop: true, which computes segments again"
        warnings.warn(effect, stacklevel=2)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Initialised):
            module.initialise()
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif hasattr(module, "pooled_positions"):
            init.zeros_(module.pooled_positions)
        elif isinstance(module, nn.BatchNorm1d):
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)
