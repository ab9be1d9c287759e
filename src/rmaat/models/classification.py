"""`RmaatForSequenceClassification`, the recurrence with a classifier on top.

Axes: B batch, N tokens, T segments, M memory tokens, D width, L layers, K key features, E
columns of an associative memory.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from transformers.activations import ACT2FN
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from rmaat.attention.precision import at_least_float32
from rmaat.errors import UserError
from rmaat.layers import NgramClassifier
from rmaat.models.checks import (
    check_ngrams,
    check_pair,
    check_segment_logits,
    select_input,
    warn_of_infinite_logits,
)
from rmaat.models.configuration import RmaatConfig
from rmaat.models.head import RmaatPreTrainedHead
from rmaat.models.losses import check_labels, example_losses
from rmaat.models.masked import mean_loss
from rmaat.models.recurrent import RmaatModel
from rmaat.models.temperature import temperature_at
from rmaat.problems import NEXT_TOKEN, REGRESSION


@dataclass
class RmaatClassifierOutput(ModelOutput):
    """The result of `RmaatForSequenceClassification`.

    To continue a sequence, pass memory, readout and associations to the next call.

    Attributes:
        loss: mean over the batch, see `rmaat.models.losses`; None without labels.
        logits: (B, num_labels), divided by the temperature for the tokens read, if the config has any.
            Those of a regression are the predicted numbers, in the unit of the labels.
        memory: (B, M, D), the memory for the next segment.
        readout: (B, D + 1), the running sum and count behind the classifier's input; with ngram_size
            (B, D + C + 2) for C labels, the sum and count of the n-grams behind them.
        segment_logits: (B, T, num_labels), the logits after each segment; None without
            output_segment_logits.
        associations: (B, L, K, E); None in a model without an associative memory.
        masked_loss: mean loss at the masked positions, (); None without masked positions. It is not
            part of `loss`.
        hidden_states: see `RmaatOutput`; those of the first input of a pair.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    memory: Tensor | None = None
    readout: Tensor | None = None
    segment_logits: Tensor | None = None
    associations: Tensor | None = None
    masked_loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class RmaatForSequenceClassification(RmaatPreTrainedHead):
    """RMAAT with a classifier on the last segment's readout.

    The loss is taken at the last segment only [C: RMT]. The classifier is linear [C], or has one
    hidden layer, as in the Long Range Arena. With `two_towers` one encoder reads both inputs of a
    pair, and the classifier reads [a, b, a * b, a - b], also as there.
    """

    pooled_positions: Tensor
    """With pooled_norm, the average number of positions behind a mean, ().

    It is 0 in models that earlier versions stored without it, and then has no effect.
    """

    def __init__(self, config: RmaatConfig) -> None:
        super().__init__(config)
        if config.problem == NEXT_TOKEN:
            raise UserError(
                f"RmaatForSequenceClassification labels whole sequences; '{NEXT_TOKEN}' needs RmaatForCausalLM"
            )
        self.rmaat = RmaatModel(config)
        self.pooled_norm = nn.BatchNorm1d(config.hidden_size, affine=False) if config.pooled_norm else None
        if config.pooled_norm:
            self.register_buffer("pooled_positions", torch.zeros(()))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        features, hidden = (4 if config.two_towers else 1) * config.hidden_size, config.classifier_hidden_size
        self.classifier_hidden = None if hidden is None else nn.Linear(features, hidden)
        self.activation = None if hidden is None else ACT2FN[config.hidden_act]
        self.classifier = nn.Linear(features if hidden is None else hidden, config.num_labels)
        sizes = (config.ngram_buckets, config.num_labels)
        self.ngrams = None if config.ngram_size is None else NgramClassifier(config.ngram_size, *sizes)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        memory: Tensor | None = None,
        readout: Tensor | None = None,
        segment_offset: int | Tensor = 0,
        total_segments: int | Tensor | None = None,
        labels: Tensor | None = None,
        input_values: Tensor | None = None,
        other_input_ids: Tensor | None = None,
        other_attention_mask: Tensor | None = None,
        output_segment_logits: bool = False,
        associations: Tensor | None = None,
        masked: Tensor | None = None,
        other_masked: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> RmaatClassifierOutput:
        """Classify sequences or, with two towers, pairs of them.

        `RmaatModel.forward` describes the other arguments and the errors.

        Args:
            labels: for the loss: (B,) int64 class indices, or what `rmaat.models.losses` says for the
                config's problem_type.
            other_input_ids: (B, N'), the second input of a pair. Its tower begins with the first
                memory too.
            other_attention_mask: (B, N').
            output_segment_logits: return segment_logits too, for a loss on every segment or an early
                answer. Entry t is the logits of a sequence that ends after segment t. After a row's
                last segment its entries repeat. Two towers and pooled_norm exclude it, because they
                need whole sequences.
            masked: (B, P) bool, the positions to hide and to predict.
            other_masked: (B, P'), those of the second input.
            token_type_ids: ignored.
        """
        first = select_input(input_ids, input_values, inputs_embeds, self.config)
        if labels is not None:
            check_labels(self.config.problem, labels, first.shape[0], self.config.num_labels)
        # A tensor of offsets counts as a continuation even if all are 0, because reading it would
        # wait for the GPU.
        begins = isinstance(segment_offset, int) and segment_offset == 0
        continues = not begins or any(x is not None for x in (memory, readout, associations, total_segments))
        check_pair(self.config.two_towers, other_input_ids, continues)
        if output_segment_logits:
            check_segment_logits(self.config.two_towers, self.config.pooled_norm)
        before_BK = None
        if self.ngrams is not None:
            check_ngrams(input_ids, readout, memory is not None, self.config.hidden_size + self.config.num_labels + 2)
            if readout is not None:
                readout, before_BK = self.readout_parts(readout)
        read_before = readout
        out = self.rmaat(
            input_ids,
            attention_mask,
            memory,
            readout,
            segment_offset,
            total_segments,
            input_values,
            output_segment_logits,
            associations,
            masked,
            inputs_embeds=inputs_embeds,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        sums = [out.masked_loss]
        if other_input_ids is None:
            features = self._normalised(out.pooled, out.readout[:, -1:], len(first))
        else:
            second = self.rmaat(
                other_input_ids,
                other_attention_mask,
                masked=other_masked,
                output_hidden_states=False,
                return_dict=True,
            )
            sums.append(second.masked_loss)
            # Normalise both towers in one call, so that they share the batch statistics.
            pooled, read = (torch.cat(pair) for pair in ((out.pooled, second.pooled), (out.readout, second.readout)))
            one, other = self._normalised(pooled, read[:, -1:], len(first)).chunk(2)
            features = torch.cat([one, other, one * other, one - other], dim=1)
        logits, readout = self._logits(features), out.readout
        by_segment = None if out.segment_pooled is None else self._logits(out.segment_pooled)
        # The n-grams depend on the ids alone, so the recurrence and its replay know nothing of them.
        # Their sums follow those of the deep part in the readout that a stream hands on. The ids may
        # be padded to more segments than the deep part computes.
        if self.ngrams is not None and input_ids is not None:
            sums_BTK = self.ngrams.sums(input_ids, attention_mask, self.config.tokens_per_segment)
            sums_BTK = sums_BTK if before_BK is None else sums_BTK + before_BK[:, None]
            logits = logits + self.ngrams.logits(sums_BTK[:, -1])
            by_segment = (
                None if by_segment is None else by_segment + self.ngrams.logits(sums_BTK[:, : by_segment.shape[1]])
            )
            readout = torch.cat([readout, sums_BTK[:, -1].to(readout.dtype)], 1)
        if self.config.temperatures is not None:
            tokens_before = self._tokens_before(read_before, torch.as_tensor(segment_offset, device=first.device))
            lengths_B = row_tokens(first, attention_mask)
            if other_input_ids is not None:
                lengths_B = lengths_B.maximum(row_tokens(other_input_ids, other_attention_mask))
            logits = self._calibrated(logits, tokens_before + lengths_B)
            if by_segment is not None:
                ends_T = self.config.tokens_per_segment * torch.arange(1, by_segment.shape[1] + 1, device=first.device)
                tokens_BT = tokens_before[..., None] + lengths_B[:, None].minimum(ends_T)
                by_segment = self._calibrated(by_segment, tokens_BT)
        if self.config.problem == REGRESSION:
            logits = self._in_unit(logits)
            by_segment = None if by_segment is None else self._in_unit(by_segment)
        if not (self.training or torch.compiler.is_compiling()):
            warn_of_infinite_logits(logits)
        loss = None
        if labels is not None:
            loss = example_losses(self.config.problem, logits, labels, self.config.label_std).mean()
        state = (out.memory, readout, by_segment, out.associations)
        return RmaatClassifierOutput(loss, logits, *state, mean_loss(*sums), out.hidden_states)

    def logits_of(self, readout: Tensor) -> Tensor:
        """Return the logits (B, num_labels) of one input whose readout is (B, D + 1), or longer with n-grams."""
        readout, ngram_sums = self.readout_parts(readout)
        pooled = (readout[:, :-1] / readout[:, -1:].clamp_min(1)).to(self.rmaat.first_memory.dtype)
        logits = self._logits(self._normalised(pooled, readout[:, -1:], len(readout)))
        logits = logits if self.ngrams is None else logits + self.ngrams.logits(ngram_sums)
        if self.config.problem == REGRESSION:
            return self._in_unit(logits)
        return self._calibrated(logits, self._tokens_before(readout, torch.zeros((), device=logits.device)))

    def readout_parts(self, readout: Tensor) -> tuple[Tensor, Tensor]:
        """Return the readout of the deep part, (B, D + 1), and the sums of n-grams, (B, C + 1) or (B, 0)."""
        ends = self.config.hidden_size + 1
        return readout[:, :ends], readout[:, ends:]

    def _tokens_before(self, readout: Tensor | None, segment_offset: Tensor) -> Tensor:
        """Return the number of tokens or values that the calls before have read, (B,) or ().

        A readout that adds up over segments counts them. Otherwise all segments count as full.
        """
        if readout is not None and self.config.readout == "running_mean":
            return readout[:, -1] * self.config.patch_size
        return segment_offset * self.config.tokens_per_segment

    def _calibrated(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Return logits (..., C) divided by the temperature for the numbers of tokens (...) read."""
        knots = self.config.temperatures
        if knots is None:
            return logits
        return (logits / temperature_at(tokens, knots)[..., None]).to(logits.dtype)

    def _in_unit(self, logits: Tensor) -> Tensor:
        """Return standardised numbers (..., C) in the unit of the labels."""
        return self.config.label_std * at_least_float32(logits) + self.config.label_mean

    def _logits(self, features: Tensor) -> Tensor:
        features = self.dropout(features)
        if self.classifier_hidden is not None and self.activation is not None:
            features = self.activation(self.classifier_hidden(features))
        logits: Tensor = self.classifier(features)
        return logits

    def _normalised(self, pooled_BD: Tensor, positions_B1: Tensor, examples: int) -> Tensor:
        """Return the means, standardised over the batch if the model has pooled_norm.

        A mean over n positions has a standard deviation of order n^(-1/2). The mean of a short text
        is therefore divided by a larger deviation, which keeps its logits from growing.

        Args:
            pooled_BD: means over positions.
            positions_B1: the number of positions of each mean.
            examples: the number of examples; the two inputs of a pair are one example.
        """
        norm = self.pooled_norm
        if norm is None:
            return pooled_BD
        positions_B1 = positions_B1.detach()
        if examples > 1:
            if self.training:
                assert norm.momentum is not None
                self.pooled_positions.lerp_(positions_B1.mean().to(self.pooled_positions.dtype), norm.momentum)
            normed_BD = norm(pooled_BD)
        else:
            # A single example, or a single pair, has no batch statistics: use the running ones.
            normed_BD = batch_norm(pooled_BD, norm.running_mean, norm.running_var, eps=norm.eps)
        share_B1 = positions_B1 / self.pooled_positions.clamp_min(1)
        return normed_BD * share_B1.clamp_max(1).sqrt().to(normed_BD.dtype)


def row_tokens(inputs: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the number of tokens or values of each row, (B,), of inputs (B, N, ...)."""
    if attention_mask is not None:
        return attention_mask.sum(1)
    return torch.full((inputs.shape[0],), inputs.shape[1], device=inputs.device)
