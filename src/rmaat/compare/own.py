"""This project's models under its ways of going back, and under per-segment checkpointing."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rmaat.backprop import Backprop, Recurrence, Tensors
from rmaat.compare.shapes import NUM_LABELS, VOCAB_SIZE, Shape
from rmaat.compare.workload import Workload, autocast, workload
from rmaat.models import RmaatConfig, RmaatForSequenceClassification, RmaatModel


@dataclass(frozen=True)
class SegmentCheckpoint:
    """PyTorch's own checkpointing, one segment at a time: what a user would write without this package."""

    def __call__(self, recurrence: Recurrence) -> Tensors:
        """The final state; each segment's activations are computed again in the backward pass."""
        state = recurrence.state
        for index in range(recurrence.total):
            # The step is pure, dropout included: no random state to keep.
            state = checkpoint(recurrence.run, index, index + 1, state, use_reentrant=False, preserve_rng_state=False)
        return state


class _CheckpointedModel(RmaatModel):
    @property
    def backprop(self) -> Backprop:
        return SegmentCheckpoint()


class _CheckpointedClassifier(RmaatForSequenceClassification):
    def __init__(self, config: RmaatConfig) -> None:
        super().__init__(config)
        self.rmaat = _CheckpointedModel(config)


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
    model = (_CheckpointedClassifier if backprop == "checkpoint" else RmaatForSequenceClassification)(config)
    if shape.torch_compile:
        model.rmaat.encoder.compile(dynamic=False)

    read = shape.segment_length if first_only else None

    def loss(ids_BN: Tensor, labels_B: Tensor) -> Tensor:
        with autocast(shape, device):
            return model(ids_BN[:, :read], labels=labels_B).loss

    return workload(model, shape, device, loss, id_type=torch.uint8)
