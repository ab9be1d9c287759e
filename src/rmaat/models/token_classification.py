"""`RmaatForTokenClassification`, the recurrence with a class for each token.

Axes: B batch, N tokens or values, P positions, M memory tokens, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from rmaat.errors import UserError
from rmaat.models.checks import check_token_labels
from rmaat.models.configuration import RmaatConfig
from rmaat.models.head import RmaatPreTrainedHead
from rmaat.models.recurrent import RmaatModel
from rmaat.problems import IGNORED, SINGLE_LABEL


@dataclass
class RmaatTokenClassifierOutput(ModelOutput):
    """The result of `RmaatForTokenClassification`.

    Attributes:
        loss: mean cross-entropy over the labelled positions of the batch, (); None without labels.
        logits: (B, P, num_labels) for the P tokens or patches; zeros in the padding.
        memory, readout, associations: the state for a call that goes on, see `RmaatOutput`.
        hidden_states: see `RmaatOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    memory: Tensor | None = None
    readout: Tensor | None = None
    associations: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class RmaatForTokenClassification(RmaatPreTrainedHead):
    """RMAAT with a linear classifier on each token of every segment [C].

    The segment step computes the logits, so replay gives the exact gradient, and only the logits of
    the whole sequence are stored beside the activations of one segment. A token reads its own
    segment and, through the memory, the segments before it.
    """

    def __init__(self, config: RmaatConfig) -> None:
        super().__init__(config)
        if config.two_towers:
            raise UserError("RmaatForTokenClassification labels one sequence; it excludes two_towers")
        if config.problem != SINGLE_LABEL:
            raise UserError(f"RmaatForTokenClassification has one class for each token, not '{config.problem}'")
        self.rmaat = RmaatModel(config)
        self.rmaat.encoder.token_classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        input_values: Tensor | None = None,
        memory: Tensor | None = None,
        readout: Tensor | None = None,
        associations: Tensor | None = None,
        segment_offset: int | Tensor = 0,
        total_segments: int | Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> RmaatTokenClassifierOutput:
        """Classify each token; `RmaatModel.forward` describes the other arguments and the errors.

        Args:
            labels: (B, P) int64 class indices. Positions with -100, and padding, have no part in
                the loss.
        """
        out = self.rmaat(
            input_ids,
            attention_mask,
            memory,
            readout,
            segment_offset,
            total_segments,
            input_values,
            associations=associations,
            inputs_embeds=inputs_embeds,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        logits, loss = out.token_logits, None
        if labels is not None:
            check_token_labels(labels, tuple(logits.shape[:2]), self.config.num_labels)
            if attention_mask is not None:
                present = attention_mask.bool()[:, :: self.config.patch_size]
                labels = labels.where(present, IGNORED)
            labels = labels.long().flatten()
            total = cross_entropy(logits.flatten(0, 1), labels, ignore_index=IGNORED, reduction="sum")
            # Without a labelled position the loss is 0 rather than 0 / 0.
            loss = total / torch.count_nonzero(labels != IGNORED).clamp_min(1)
        state = (out.memory, out.readout, out.associations)
        return RmaatTokenClassifierOutput(loss, logits, *state, out.hidden_states)
