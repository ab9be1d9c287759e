"""The moving average of the weights: its update, its use in evaluations, its part of a checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

RAW_WEIGHTS = "raw_weights.safetensors"
"""The weights that training goes on with, in a checkpoint whose model has the averaged ones."""


class WeightAverage(TrainerCallback):
    """The exponential moving average of a model's parameters over the steps of the optimiser.

    After step s the average a of a parameter w becomes d a + (1 - d) w, with
    d = min(decay, (1 + s) / (10 + s)). In a short training the average would otherwise be that of
    the initial weights. Buffers are not averaged.

    Args:
        model: the model, on its device.
        decay: the largest d, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = dict(model.named_parameters())
        self._averages = {name: weight.detach().clone() for name, weight in self._weights.items()}
        # The raw weights while the model has the averaged ones, else None.
        self._raw: dict[str, Tensor] | None = None

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the average; the trainer counts the step afterwards."""
        step = state.global_step + 1
        update = get_ema_multi_avg_fn(min(self._decay, (1 + step) / (10 + step)))
        update(list(self._averages.values()), list(self._weights.values()), None)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights while the context is open."""
        assert self._raw is None
        self._raw = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._write(self._averages)
        try:
            yield
        finally:
            self._write(self._raw)
            self._raw = None

    def save_raw(self, checkpoint: Path) -> None:
        """Write the raw weights into a checkpoint, while the model has the averaged ones."""
        assert self._raw is not None
        save_file(self._raw, checkpoint / RAW_WEIGHTS)

    def load(self, checkpoint: Path) -> None:
        """Take the average from the model, and give the model the raw weights of a checkpoint.

        The caller has loaded the checkpoint's averaged weights into the model.
        """
        for name, weight in self._weights.items():
            self._averages[name].copy_(weight.detach())
        self._write(load_file(checkpoint / RAW_WEIGHTS))

    @torch.no_grad()
    def _write(self, values: dict[str, Tensor]) -> None:
        """Copy values into the weights, which stay the same tensors for optimiser and compiler."""
        for name, weight in self._weights.items():
            weight.copy_(values[name])
