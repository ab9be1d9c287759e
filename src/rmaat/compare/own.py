"""This project's models, with each way for gradients to go back over the segments."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from rmaat.backprop import Checkpoint
from rmaat.compare.shapes import NUM_LABELS, VOCAB_SIZE, Shape
from rmaat.compare.workload import Workload, autocast, workload
from rmaat.models import RmaatConfig, RmaatForSequenceClassification


def own(shape: Shape, device: str, attention_type: str, backprop: str, first_only: bool) -> Workload:
    """A classifier of this project.

    Args:
        shape: model and batch.
        device: 'cpu' or 'cuda'.
        attention_type: 'astro' or 'softmax'.
        backprop: 'replay', 'full' or 'checkpoint'.
        first_only: read the first segment of the sequence and nothing else.
    """
    torch.manual_seed(0)
    settings = shape.model_settings(attention_type, replay=backprop == "replay")
    everything: dict[str, Any] = {**asdict(settings), "vocab_size": VOCAB_SIZE, "num_labels": NUM_LABELS}
    config = RmaatConfig(**everything)
    model = RmaatForSequenceClassification(config)
    if backprop == "checkpoint":
        model.backprop = Checkpoint()
    if shape.torch_compile:
        model.rmaat.encoder.compile(dynamic=False)

    read = shape.segment_length if first_only else None

    def loss(ids_BN: Tensor, labels_B: Tensor) -> Tensor:
        with autocast(shape, device):
            return model(ids_BN[:, :read], labels=labels_B).loss

    return workload(model, shape, device, loss, id_type=torch.uint8)
