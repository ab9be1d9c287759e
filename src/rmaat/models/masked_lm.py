"""`RmaatForMaskedLM`, the recurrence with a loss at masked positions, for pre-training.

Axes: B batch, N tokens or values, P positions, M memory tokens, D width.
"""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from rmaat.errors import UserError
from rmaat.models.checks import check_pair
from rmaat.models.configuration import RmaatConfig
from rmaat.models.head import RmaatPreTrainedHead
from rmaat.models.masked import mean_loss
from rmaat.models.recurrent import RmaatModel


@dataclass
class RmaatMaskedLMOutput(ModelOutput):
    """The result of `RmaatForMaskedLM`.

    Attributes:
        loss: mean loss over the masked positions of the batch, (); None without masked positions.
        masked_loss: (B, 2), the sum of each row's losses and their number; of the first input.
        memory, readout, associations: the state for a call that goes on, see `RmaatOutput`.
        hidden_states: see `RmaatOutput`; those of the first input of a pair.
    """

    loss: Tensor | None = None
    masked_loss: Tensor | None = None
    memory: Tensor | None = None
    readout: Tensor | None = None
    associations: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class RmaatForMaskedLM(RmaatPreTrainedHead):
    """RMAAT that predicts masked tokens or values of every segment, in the memory of one segment.

    The segment step adds up the losses, so no logits are stored, and replay gives the exact
    gradient. `init_from` of a later run, or `load_state_dict(..., strict=False)`, takes the weights.
    """

    def __init__(self, config: RmaatConfig) -> None:
        super().__init__(config)
        if not config.masked_head:
            raise UserError("RmaatForMaskedLM needs a config with masked_head: true")
        self.rmaat = RmaatModel(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        masked: Tensor | None = None,
        input_values: Tensor | None = None,
        memory: Tensor | None = None,
        readout: Tensor | None = None,
        associations: Tensor | None = None,
        segment_offset: int | Tensor = 0,
        total_segments: int | Tensor | None = None,
        other_input_ids: Tensor | None = None,
        other_attention_mask: Tensor | None = None,
        other_masked: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> RmaatMaskedLMOutput:
        """Predict the masked positions; `RmaatModel.forward` describes the arguments and the errors.

        Args:
            other_input_ids: (B, N'), the second input of a pair if the config has two_towers.
            other_attention_mask: (B, N').
            other_masked: (B, P').
            token_type_ids: ignored.
        """
        continues = any(x is not None for x in (memory, readout, associations, total_segments))
        check_pair(self.config.two_towers, other_input_ids, continues)
        out = self.rmaat(
            input_ids,
            attention_mask,
            memory,
            readout,
            associations=associations,
            segment_offset=segment_offset,
            total_segments=total_segments,
            input_values=input_values,
            masked=masked,
            inputs_embeds=inputs_embeds,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        sums = [out.masked_loss]
        if other_input_ids is not None:
            second = self.rmaat(
                other_input_ids,
                other_attention_mask,
                masked=other_masked,
                output_hidden_states=False,
                return_dict=True,
            )
            sums.append(second.masked_loss)
        state = (out.memory, out.readout, out.associations)
        return RmaatMaskedLMOutput(mean_loss(*sums), out.masked_loss, *state, out.hidden_states)
