"""What `pooled_norm` standardises by in evaluation, taken anew where a run is evaluated."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rmaat.models import RmaatForSequenceClassification
from rmaat.training.data import RunData, drawn

EXAMPLES = 512
"""Behind the statistics."""


class PooledStatistics(TrainerCallback):
    """Takes them before each evaluation, which a checkpoint follows.

    The running averages lag behind the weights by some ten steps and know some ten batches, each of one length; while the learning
    rate is high a model would be measured at chance by them.
    """

    def __init__(self, source: RunData, train: Dataset) -> None:
        """From drawn examples of the training part, which has at least two."""
        sample = source.longest_first(drawn(train, EXAMPLES, source.run.data_seed))
        # A single example would be read without statistics of its own: none is left over for a batch to itself.
        size = max(2, source.run.per_device_eval_batch_size)
        self._batches = DataLoader(sample, size, collate_fn=source.collator(), drop_last=len(sample) >= size)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Called by the trainer, after its own callback has decided whether to evaluate."""
        if control.should_evaluate:
            take_statistics(given["model"], self._batches)


def take_statistics(model: RmaatForSequenceClassification, batches: Iterable[Mapping[str, Tensor]]) -> None:
    """Set the statistics of the model's `pooled_norm` to those of the examples of `batches`, of at least two each, as it is now."""
    norm = model.pooled_norm
    assert norm is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    read: list[Tensor] = []
    positions: list[Tensor] = []
    hooks = (
        norm.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].double())),
        model.rmaat.register_forward_hook(lambda _, inputs, out: positions.append(out.readout[:, -1].double())),
    )
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                model(**{name: x.to(model.device) for name, x in batch.items()})
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    variance_D, mean_D = torch.var_mean(torch.cat(read), 0)
    norm.running_mean.copy_(mean_D)
    norm.running_var.copy_(variance_D)
    model.pooled_positions.copy_(torch.cat(positions).mean())
