"""The statistics of `pooled_norm` for evaluation, measured before each evaluation."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rmaat.models import RmaatForSequenceClassification
from rmaat.training.data import RunData, draw_examples
from rmaat.training.random_state import preserved_random_state

EXAMPLES = 512
"""The number of training examples behind the statistics."""


class PooledNormStatistics(TrainerCallback):
    """A callback that measures the statistics before each evaluation.

    A checkpoint follows each evaluation, so it stores them. The running averages do not suffice:
    they lag behind the weights by some ten steps, and cover some ten batches of one length each.
    While the learning rate is high, a model evaluated with them would perform at chance.
    """

    def __init__(
        self, source: RunData, train: Dataset, evaluated_weights: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Draw the examples from the training part, which must have at least two.

        Args:
            source: the data of the run.
            train: its training part.
            evaluated_weights: opens a context in which the model has the weights of evaluations.
        """
        self._evaluated_weights = evaluated_weights
        sample = source.longest_first(draw_examples(train, EXAMPLES, source.run.data_seed))
        # Drop a last batch that is not full: it might hold a single example, which has no batch
        # statistics.
        size = max(2, source.run.per_device_eval_batch_size)
        self._batches = DataLoader(sample, size, collate_fn=source.collator(), drop_last=len(sample) >= size)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure the statistics if an evaluation follows.

        The trainer's own callback runs before this one, and has set `control.should_evaluate`.
        """
        if control.should_evaluate:
            with self._evaluated_weights():
                measure_statistics(kwargs["model"], self._batches)


def measure_statistics(model: RmaatForSequenceClassification, batches: Iterable[Mapping[str, Tensor]]) -> None:
    """Set the statistics of the model's `pooled_norm` to those of the examples in `batches`.

    Args:
        model: the model; its mode is restored afterwards.
        batches: arguments of the model, with at least two examples each.
    """
    norm = model.pooled_norm
    assert norm is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # Hooks collect the inputs of the normalisation, and the positions behind each of them.
    pooled: list[Tensor] = []
    positions: list[Tensor] = []
    hooks = (
        norm.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0].double())),
        model.rmaat.register_forward_hook(lambda _, inputs, out: positions.append(out.readout[:, -1].double())),
    )
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), preserved_random_state():
            for batch in batches:
                model(**{name: x.to(model.device) for name, x in batch.items()})
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    variance_D, mean_D = torch.var_mean(torch.cat(pooled), 0)
    norm.running_mean.copy_(mean_D)
    norm.running_var.copy_(variance_D)
    model.pooled_positions.copy_(torch.cat(positions).mean())
