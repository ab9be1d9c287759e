"""The segment step of a classifier as a module for `torch.export` and ONNX.

A whole model with one length needs no wrapper: `torch.export.export(model, (input_ids,))`.

Axes: B batch, S tokens of a segment, M memory tokens, D width, L layers, K key features, E columns
of an associative memory.
"""

import torch
from torch import Tensor, nn

from rmaat.errors import UserError
from rmaat.models.classification import RmaatForSequenceClassification
from rmaat.models.segment_state import SegmentInputs, SegmentState


class SegmentStep(nn.Module):
    """One segment of a classifier in evaluation mode: the state in, logits and the state out.

    Run it over a sequence segment by segment: the memory of a device then holds one segment, at any
    length. The first state is `initial_state`, the factors are those of
    `rmaat.astrocyte.retention_factors`.

    Args:
        model: a classifier of token ids with one input.

    Raises:
        UserError: for a model with two_towers, or of input_type 'values', and if the temperature
            depends on the number of tokens but the readout does not count them.
    """

    def __init__(self, model: RmaatForSequenceClassification) -> None:
        super().__init__()
        if model.config.two_towers or model.config.input_type == "values":
            raise UserError("SegmentStep needs a model of input_type 'tokens' with two_towers: false")
        if len(model.config.temperatures or ()) > 1 and model.config.readout != "running_mean":
            raise UserError(
                "SegmentStep needs readout 'running_mean', which counts the tokens, because the model's "
                "temperatures depend on their number"
            )
        self.model = model
        # A new module is in training mode, and exporters warn about that.
        self.train(model.training)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return memory (B, M, D), readout (B, R) and associations (B, L, K, E) before a sequence.

        R is D + 1, or D + C + 2 with n-grams and C labels.
        """
        config, first = self.model.config, self.model.rmaat.first_memory.detach()
        ngrams = 0 if self.model.ngrams is None else config.num_labels + 1
        readout = first.new_zeros(batch, config.hidden_size + 1 + ngrams)
        return first.repeat(batch, 1, 1), readout, first.new_zeros(batch, *config.associations_shape)

    def forward(
        self, input_ids: Tensor, length: Tensor, factor: Tensor, memory: Tensor, readout: Tensor, associations: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits (B, num_labels), as if the sequence ended here, and the next state.

        Args:
            input_ids: (B, S) int64, a whole segment; ids after a row's length are not read.
            length: (B,) int64, the number of the row's tokens in it. With 0 a row keeps its state.
            factor: (B, 1), the retention factor after this segment.
            memory: (B, M, D).
            readout: (B, R), see `initial_state`.
            associations: (B, L, K, E); L is 0 in a model without an associative memory.
        """
        encoder, batch = self.model.rmaat.encoder, input_ids.shape[0]
        masked = torch.zeros(batch, 0, dtype=torch.bool, device=input_ids.device)
        inputs = SegmentInputs(input_ids, length, factor, masked, masked.long())
        loss_sums = readout.new_zeros(batch, 2 if self.model.config.masked_head else 0)
        deep, ngram_sums = self.model.readout_parts(readout)
        state = SegmentState(memory, deep, associations, loss_sums, memory.new_zeros(batch, 0, 0))
        state = encoder(encoder.shared(), inputs, state, None)
        readout = state.readout
        if self.model.ngrams is not None:
            segment = input_ids.shape[1]
            present_BS = torch.arange(segment, device=input_ids.device) < length[:, None]
            sums_BK = ngram_sums + self.model.ngrams.sums(input_ids, present_BS, segment)[:, -1]
            readout = torch.cat([readout, sums_BK.to(readout.dtype)], 1)
        return self.model.logits_of(readout), state.memory, readout, state.associations
