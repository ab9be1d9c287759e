"""`RmaatModel`, the recurrence over segments: from token ids to memory and readout.

`segment.py` computes one segment. `rmaat.backprop` runs the loop over segments.

Axes: B batch, N tokens or values, T segments, S tokens or patches of a segment, P values of a
patch, M memory tokens, D width, L layers, K key features of the associative memory.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from rmaat.astrocyte import log_increments
from rmaat.backprop import Backprop, Full, Recurrence, Replay, Tensors, Truncated
from rmaat.budget import Budget
from rmaat.layers import TokenEmbedding, ValueEmbedding
from rmaat.models.checks import (
    SegmentRange,
    check_associations,
    check_attentions,
    check_masked,
    check_next_labels,
    check_readout,
    check_state,
    count_patches,
    number_segments,
    row_lengths,
    select_input,
)
from rmaat.models.configuration import RmaatConfig
from rmaat.models.functional import FunctionalModule, check_repeatable
from rmaat.models.pretrained import RmaatPreTrainedModel
from rmaat.models.retention import batch_factors
from rmaat.models.segment import SegmentEncoder
from rmaat.models.segment_state import SegmentInputs, SegmentState, TokenOutputs

SEED_STRIDE = 0x9E3779B97F4A7C15
"""The difference between the dropout seeds of successive segments.

It is odd, so that the seeds of a call's segments all differ modulo a power of two.
"""


@dataclass
class RmaatOutput(ModelOutput):
    """The result of `RmaatModel`.

    Attributes:
        pooled: (B, D), the mean that the head reads.
        memory: (B, M, D), the memory for the next segment.
        readout: (B, D + 1), the sum of the positions that `pooled` averages and, last, their number.
        segment_pooled: (B, T, D), `pooled` after each segment; None without output_segments.
        associations: (B, L, K, E), the associative memory of each layer; None in a model
            without one.
        masked_loss: (B, 2), the sum of the losses at masked positions and their number; None without
            masked positions.
        hidden_states: L + 1 tensors (B, P, D) for the P tokens or patches: the embedded tokens, then
            the output of each layer, the last one normalised; None without output_hidden_states.
        token_logits: (B, P, num_labels); None in a model without a token classifier.
        last_hidden: (B, P, D), the last layer's output, normalised; None without output_last_hidden.
        label_loss: (B, 2), the sum of the losses of the labels and their number; None without labels.
        token_losses: (B, P), the loss of each label; None without output_token_losses.
        token_correct: (B, P) bool, whether each label has the largest logit; None without
            output_token_correct.
    """

    pooled: Tensor | None = None
    memory: Tensor | None = None
    readout: Tensor | None = None
    segment_pooled: Tensor | None = None
    associations: Tensor | None = None
    masked_loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    token_logits: Tensor | None = None
    last_hidden: Tensor | None = None
    label_loss: Tensor | None = None
    token_losses: Tensor | None = None
    token_correct: Tensor | None = None


class RmaatModel(RmaatPreTrainedModel):
    """Segments with memory tokens passed between them, without a head.

    The config, or an object that is assigned to `backprop`, decides how gradients travel back over
    the segments.
    """

    def __init__(self, config: RmaatConfig) -> None:
        super().__init__(config)
        self.encoder = SegmentEncoder(config)
        self.first_memory = nn.Parameter(torch.empty(config.num_memory_tokens, config.hidden_size))
        learned = config.schedule == "learned"
        self.retention_logits = nn.Parameter(torch.empty(config.num_segments)) if learned else None
        buffer = torch.device("cpu") if config.replay_buffer == "cpu" else None
        # One object serves all calls, because it measures the memory of a segment only once. Two
        # towers make two calls before one backward pass, so each call has half of the budget.
        budget = Budget.parse(config.replay_budget).divided(2 if config.two_towers else 1)
        self._replay = Replay(budget, buffer)
        self._backprop: Backprop | None = None
        self.post_init()

    def initialise(self) -> None:
        """Draw the first memory, and start the learned factors at those of the schedule 'ltp'."""
        init.normal_(self.first_memory, std=0.02)
        if self.retention_logits is not None:
            # The softmax of the logarithms gives those factors.
            logits = log_increments(self.config.num_segments, self.config.astrocyte)
            init.copy_(self.retention_logits, torch.from_numpy(logits.copy()))

    @property
    def backprop(self) -> Backprop:
        """The object that runs the loop over segments, forward and backward.

        Assign any `rmaat.backprop.Backprop` to use it: `model.backprop = Checkpoint()`. It is
        neither stored nor part of the config. Assign None to return to the config's choice, which
        follows from memory_replay_backprop, truncated_segments, replay_budget and replay_buffer.

        Raises:
            UserError: if the assigned object is not a `Backprop`.
        """
        if self._backprop is not None:
            return self._backprop
        if self.config.truncated_segments is not None:
            return Truncated(self.config.truncated_segments)
        return self._replay if self.config.memory_replay_backprop else Full()

    @backprop.setter
    def backprop(self, backprop: Backprop | None) -> None:
        self._backprop = backprop

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of token ids, (vocab_size, D).

        Raises:
            NotImplementedError: in a model of input_type 'values', which has none.
        """
        if isinstance(self.encoder.embedding, ValueEmbedding):
            raise NotImplementedError("a model of input_type 'values' has no token embeddings")
        return self.encoder.embedding.tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the embedding of token ids."""
        assert isinstance(self.encoder.embedding, TokenEmbedding)
        self.encoder.embedding.tokens = value

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the map from features to the ids of masked tokens, if there is one."""
        head = self.encoder.masked_head
        return None if head is None or head.values else head.output

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replace the map to the ids of masked tokens."""
        assert self.encoder.masked_head is not None
        self.encoder.masked_head.output = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        memory: Tensor | None = None,
        readout: Tensor | None = None,
        segment_offset: int | Tensor = 0,
        total_segments: int | Tensor | None = None,
        input_values: Tensor | None = None,
        output_segments: bool = False,
        associations: Tensor | None = None,
        masked: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        labels: Tensor | None = None,
        output_last_hidden: bool = False,
        output_token_losses: bool = False,
        output_token_correct: bool = False,
    ) -> RmaatOutput:
        """Run all segments.

        Args:
            input_ids: (B, N) int64; uint8, int8, int16 and int32 take less memory. The model pads
                to whole segments. It never reads ids under a zero of the mask.
            attention_mask: (B, N), ones then zeros in each row; None means all ones. Each row has
                the number of segments T that its tokens fill.
            memory: (B, M, D) from the previous call; None begins with the learned first memory.
            readout: (B, D + 1) from the previous call. A readout that adds up over segments needs
                it beside memory. A row without a token returns it unchanged.
            segment_offset: the number of segments before this call, one number or (B,).
            total_segments: T of the whole sequence, one number or (B,); None means the offset plus
                the segments of this call.
            input_values: (B, N) floating point, instead of input_ids if the config's input_type is
                'values'. Each row holds whole patches of patch_size values. The mask has one entry
                per value.
            output_segments: return segment_pooled too, for a loss on every segment. After a row's
                last segment its entries repeat.
            associations: (B, L, K, E) from the previous call, in a model with
                associative_memory; None begins with an empty one.
            masked: (B, P) bool, True at the positions to hide and to predict, in a model with a
                masked head. P is the number of tokens, or of patches.
            token_type_ids: ignored; the tokenizers of some other models return them.
            inputs_embeds: (B, N, D), the embedded tokens without positions, instead of input_ids.
                The memory tokens are not part of it. Gradients reach it.
            output_hidden_states: return hidden_states too; None means the config's setting. They take
                memory for the whole sequence: (L + 1) D numbers for each position, in training too.
                Replay still computes the activations of one segment at a time.
            output_attentions: refused if True, because there are no attention matrices.
            labels: (B, N) int64, the id that follows each token, or -100, in a causal model. The
                segment step computes the losses, so no logits are stored.
            output_last_hidden: return last_hidden, which takes memory for the whole sequence.
            output_token_losses: return token_losses.
            output_token_correct: return token_correct.

        Returns:
            `RmaatOutput`. A row without a token returns its state unchanged.

        Raises:
            ValueError: for wrong inputs; see `rmaat.models.checks`.
        """
        config = self.config
        check_attentions(output_attentions)
        tokens = select_input(input_ids, input_values, inputs_embeds, config)
        # Tokens or values of each row, and the positions that they take: one per token or patch.
        input_lengths = row_lengths(tokens, attention_mask, config.vocab_size)
        lengths = count_patches(input_lengths, config.patch_size)
        segment_range = number_segments(
            input_lengths, config.tokens_per_segment, segment_offset, total_segments, memory is not None
        )
        batch = len(lengths)
        check_state("memory", memory, (batch, config.num_memory_tokens, config.hidden_size))
        check_associations(associations, memory, (batch, *config.associations_shape), config.associative_memory)
        check_masked(masked, tokens, config.patch_size, config.masked_head)
        check_readout(readout, memory, (batch, config.hidden_size + 1), config.readout == "running_mean")
        if memory is None:
            memory = self.first_memory.expand(batch, -1, -1)
        # Make the expanded memory contiguous: other strides would compile the step a second time.
        memory = memory.to(self.first_memory.dtype).contiguous()
        # Sum in at least float32: a bfloat16 sum stops growing after some hundred terms.
        sum_type = torch.promote_types(memory.dtype, torch.float32)
        if readout is None:
            readout = memory.new_zeros(batch, config.hidden_size + 1)
        if associations is None:
            associations = memory.new_zeros(batch, *config.associations_shape)
        check_next_labels(labels, masked, tokens, config)
        predicts = config.masked_head or labels is not None
        loss_sums = readout.new_zeros(batch, 2 if predicts else 0, dtype=sum_type)
        if output_hidden_states is None:
            output_hidden_states = bool(config.output_hidden_states)
        wanted = TokenOutputs(output_hidden_states, output_last_hidden, output_token_losses, output_token_correct)
        # The features of each position that are returned for the whole sequence.
        hidden = config.hidden_size
        widths = [hidden] * (config.num_hidden_layers + 1) if wanted.hidden_states else []
        widths += [hidden] * wanted.last_hidden + [1] * (wanted.losses + wanted.correct)
        if self.encoder.token_classifier is not None:
            widths.append(config.num_labels)
        token_outputs = memory.new_zeros(batch, config.positions_per_segment if widths else 0, sum(widths))
        state = SegmentState(
            memory, readout.to(sum_type), associations.to(sum_type).contiguous(), loss_sums, token_outputs
        )
        inputs = self._segment_inputs(tokens, lengths, segment_range, masked, labels)
        recorded = [*(["readout"] if output_segments else []), *(["token_outputs"] if widths else [])]
        final, *histories = self._run(inputs, state, lengths, segment_range, recorded, wanted)
        history = dict(zip(recorded, histories, strict=True))

        def mean_readout(readout: Tensor) -> Tensor:
            return (readout[..., :-1] / readout[..., -1:].clamp_min(1)).to(memory.dtype)

        hidden_states = last_hidden = token_losses = token_correct = token_logits = None
        if widths:
            features_BSF = history["token_outputs"].transpose(0, 1).flatten(1, 2)
            # Cut the last segment's padding, or fill up to the width of the input.
            missing = tokens.shape[1] // config.patch_size - features_BSF.shape[1]
            outputs = iter(pad(features_BSF, (0, 0, 0, missing)).split(widths, dim=-1))
            if wanted.hidden_states:
                hidden_states = tuple(islice(outputs, config.num_hidden_layers + 1))
            last_hidden = next(outputs) if wanted.last_hidden else None
            token_losses = next(outputs).squeeze(-1) if wanted.losses else None
            token_correct = next(outputs).squeeze(-1) > 0 if wanted.correct else None
            token_logits = next(outputs, None)
        return RmaatOutput(
            pooled=mean_readout(final.readout),
            memory=final.memory,
            readout=final.readout,
            segment_pooled=mean_readout(history["readout"]).transpose(0, 1) if output_segments else None,
            associations=final.associations if config.associative_memory else None,
            masked_loss=None if masked is None else final.loss_sums,
            hidden_states=hidden_states,
            token_logits=token_logits,
            last_hidden=last_hidden,
            label_loss=None if labels is None else final.loss_sums,
            token_losses=token_losses,
            token_correct=token_correct,
        )

    def _segment_inputs(
        self,
        tokens: Tensor,
        lengths: NDArray[np.int64],
        segment_range: SegmentRange,
        masked: Tensor | None,
        labels: Tensor | None,
    ) -> SegmentInputs:
        """Return the tokens (B, N) as segments, (T, B, S) ids or (T, B, S, P) values.

        Embedded tokens (B, N, D) become (T, B, S, D).

        The result is a view if N is a multiple of the segment, because a copy of a long sequence
        needs more memory than a segment.
        """
        total, size = segment_range.longest, self.config.positions_per_segment
        width = total * self.config.tokens_per_segment
        # Call `pad` only if something is missing: it copies even if it adds nothing.
        missing = width - tokens.shape[1]
        embedded = tokens.dim() == 3
        tokens = pad(tokens, (0, 0, 0, missing) if embedded else (0, missing)) if missing > 0 else tokens[:, :width]
        if tokens.is_floating_point():
            tokens = tokens.to(self.first_memory.dtype)
            if not embedded:
                tokens = tokens.unflatten(1, (total * size, self.config.patch_size))
        # Each row's number of positions in each segment: full ones, a remainder, then zeros.
        length_TB = (lengths - size * np.arange(total)[:, None]).clip(0, size)

        def by_segment(entries_BP: Tensor | None, dtype: torch.dtype) -> Tensor:
            """Return entries for positions as (T, B, S), or (T, B, 0) if there are none."""
            if entries_BP is None:
                return torch.zeros(total, len(lengths), 0, dtype=dtype, device=tokens.device)
            # Pad to whole segments; the step ignores the padding.
            entries_BP = entries_BP.to(dtype)[:, : total * size]
            padded_BP = pad(entries_BP, (0, total * size - entries_BP.shape[1]))
            return padded_BP.unflatten(1, (total, size)).transpose(0, 1)

        return SegmentInputs(
            tokens.unflatten(1, (total, size)).transpose(0, 1),
            torch.from_numpy(length_TB).to(tokens.device),
            batch_factors(self.config, self.retention_logits, segment_range).to(self.first_memory),
            by_segment(masked, torch.bool),
            by_segment(labels, torch.int64),
        )

    def _run(
        self,
        inputs: SegmentInputs,
        state: SegmentState,
        lengths: NDArray[np.int64],
        segment_range: SegmentRange,
        recorded: list[str],
        wanted: TokenOutputs,
    ) -> tuple[SegmentState, *Tensors]:
        """Return the final state and the history of each tensor of it in `recorded`, (T, B, ...)."""
        encoder, batch = self.encoder, len(segment_range.segments)
        # A segment is computed only as wide as its longest row.
        starts_T = self.config.positions_per_segment * np.arange(segment_range.longest)
        widths = encoder.widths(lengths.max(initial=0) - starts_T)
        # Draw one seed for all dropout masks now. The backward pass may recompute segments in
        # another mode, and must then use the same masks.
        dropout_seed = int(torch.randint(2**62, ())) if self.training and encoder.drop else None
        recomputes = torch.is_grad_enabled() and segment_range.longest > 1 and self.backprop.recomputes
        # Take the lock in inference too: another thread's backward pass may have swapped this
        # module's weights.
        with encoder.lock, check_repeatable(encoder) if recomputes else nullcontext():
            functional = FunctionalModule(encoder, encoder.lock)

            def step(index: int, parameters: Tensors, shared: Tensors, tensors: Tensors, state: Tensors) -> Tensors:
                segment = SegmentInputs(*tensors)
                width, dropout_masks = widths[index], None
                if dropout_seed is not None:
                    seed = (dropout_seed + index * SEED_STRIDE) % 2**63
                    dropout_masks = encoder.dropout_masks(seed, batch, width, state[0].device)
                # Make the inputs contiguous, as the state is: other strides would compile again.
                cut = segment._replace(
                    tokens=segment.tokens[:, :width], masked=segment.masked[:, :width], labels=segment.labels[:, :width]
                )
                segment_inputs = SegmentInputs(*(x.contiguous() for x in cut))
                arguments = (parameters, shared, segment_inputs, SegmentState(*state), dropout_masks)
                # Only if asked for: another argument would be another graph of a compiled step.
                return functional(*arguments, wanted) if any(wanted) else functional(*arguments)

            history = tuple(map(SegmentState._fields.index, recorded))
            counts = tuple(segment_range.segments.tolist())
            shared = encoder.shared()
            recurrence = Recurrence(step, functional.parameters, shared, inputs, state, counts, history)
            outputs = self.backprop(recurrence)
        return (SegmentState(*outputs[: len(state)]), *outputs[len(state) :])
