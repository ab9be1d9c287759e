"""Sequence classification. Axes: B batch, N tokens, M memory tokens, D width."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.utils import ModelOutput

from rmaat.models.checks import check_labels
from rmaat.models.configuration import RmaatConfig
from rmaat.models.recurrent import RmaatModel, RmaatPreTrainedModel


@dataclass
class RmaatClassifierOutput(ModelOutput):
    """Result of `RmaatForSequenceClassification`.

    Attributes:
        loss: mean cross-entropy over the batch, where labels were given.
        logits: (B, num_labels).
        memory: (B, M, D), what the next segment would be given.
        readout: (B, D + 1), to be given with `memory` to a call that goes on.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    memory: Tensor | None = None
    readout: Tensor | None = None


class RmaatForSequenceClassification(RmaatPreTrainedModel):
    """RMAAT with a linear classifier on the last segment's readout; the loss is taken there alone [C: RMT]."""

    def __init__(self, config: RmaatConfig) -> None:
        super().__init__(config)
        self.rmaat = RmaatModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        memory: Tensor | None = None,
        readout: Tensor | None = None,
        segment_offset: int | Tensor = 0,
        total_segments: int | Tensor | None = None,
        labels: Tensor | None = None,
    ) -> RmaatClassifierOutput:
        """Classify sequences; arguments and errors as in `RmaatModel.forward`, and `labels`, (B,) int64 class indices."""
        if labels is not None:
            check_labels(labels, input_ids.shape[0], self.config.num_labels)
        out = self.rmaat(input_ids, attention_mask, memory, readout, segment_offset, total_segments)
        logits = self.classifier(self.dropout(out.pooled))
        loss = None if labels is None else cross_entropy(logits, labels)
        return RmaatClassifierOutput(loss=loss, logits=logits, memory=out.memory, readout=out.readout)
