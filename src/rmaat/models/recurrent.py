"""The recurrence over segments: from token ids to memory and readout.

Axes: B batch, N tokens or values, T segments, S tokens or patches of a segment, P values of a patch, M memory tokens, D width,
L layers, K key features of the associative memory.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from rmaat.astrocyte import NEED_TOTAL, log_increments, retention_factors
from rmaat.attention.base import Mixer
from rmaat.backprop import Backprop, Full, Recurrence, Replay, Tensors, Truncated
from rmaat.budget import Budget
from rmaat.errors import UserError
from rmaat.layers import ShortConvolution, ZeroLinear
from rmaat.models.checks import (
    Place,
    check_associations,
    check_backprop,
    check_readout,
    check_state,
    one_input,
    place_segments,
    row_lengths,
    whole_patches,
)
from rmaat.models.configuration import RmaatConfig
from rmaat.models.functional import FunctionalModule, check_repeatable
from rmaat.models.segment import SegmentEncoder, SegmentInputs, SegmentState

SEED_STRIDE = 0x9E3779B97F4A7C15
"""Odd, so that the seeds of a call's segments all differ."""


@dataclass
class RmaatOutput(ModelOutput):
    """Result of `RmaatModel`.

    Attributes:
        pooled: (B, D), the mean that the head reads.
        memory: (B, M, D), what the next segment would be given.
        readout: (B, D + 1), the running sum and count behind `pooled`.
        segment_pooled: (B, T, D), what `pooled` is after each segment, where it was asked for.
        associations: (B, L, K, D + 1), the associative memory of each layer; None in a model without it.
    """

    pooled: Tensor | None = None
    memory: Tensor | None = None
    readout: Tensor | None = None
    segment_pooled: Tensor | None = None
    associations: Tensor | None = None


class RmaatPreTrainedModel(PreTrainedModel):
    """What transformers needs to know to build, load and initialise the models."""

    config_class = RmaatConfig
    base_model_prefix = "rmaat"
    main_input_name = "input_ids"

    def __setattr__(self, name: str, value: Any) -> None:
        # Here rather than in the property's setter: nn.Module registers a module before it looks
        # for a property, and it would be stored with the model.
        if name == "backprop" and value is not None:
            check_backprop(value)
        super().__setattr__(name, value)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (Mixer, ShortConvolution, ZeroLinear)):
            module.initialise()
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif hasattr(module, "pooled_positions"):
            init.zeros_(module.pooled_positions)
        elif isinstance(module, nn.BatchNorm1d):
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)
        elif isinstance(module, SegmentEncoder) and module.write_offset is not None:
            init.normal_(module.write_offset, std=0.02)
        elif isinstance(module, RmaatModel):
            init.normal_(module.first_memory, std=0.02)
            if module.retention_logits is not None:
                at_ltp = log_increments(module.config.num_segments, module.config.astrocyte)
                init.copy_(module.retention_logits, torch.from_numpy(at_ltp.copy()))


class RmaatModel(RmaatPreTrainedModel):
    """Segments with memory tokens passed between them, without a head.

    How gradients go back over the segments is what the config asks for, or an object assigned to
    `backprop`.
    """

    def __init__(self, config: RmaatConfig) -> None:
        super().__init__(config)
        self.encoder = SegmentEncoder(config)
        self.first_memory = nn.Parameter(torch.empty(config.num_memory_tokens, config.hidden_size))
        learned = config.schedule == "learned"
        self.retention_logits = nn.Parameter(torch.empty(config.num_segments)) if learned else None
        buffer = torch.device("cpu") if config.replay_buffer == "cpu" else None
        # Kept for all calls, since it measures segments once. Two towers are two calls before one
        # backward pass, so each has half of the budget.
        budget = Budget.parse(config.replay_budget).shared_by(2 if config.two_towers else 1)
        self._replay = Replay(budget, buffer)
        self._backprop: Backprop | None = None
        self.post_init()

    @property
    def backprop(self) -> Backprop:
        """The way for gradients to go back over the segments.

        Assign any `rmaat.backprop.Backprop` to use it: `model.backprop = Checkpoint()`. It is
        neither stored nor part of the config. Assign None to return to what the config asks for
        by memory_replay_backprop, truncated_segments, replay_budget and replay_buffer.

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
    ) -> RmaatOutput:
        """Run all segments.

        Args:
            input_ids: (B, N) int64, or uint8, int8, int16 or int32, which take less memory. Padded to whole segments here; what
                lies under a zero mask is never read.
            attention_mask: (B, N), ones then zeros in each row; None means all ones. T is each row's own.
            memory: (B, M, D) from a call over what came before; None begins with the learned first memory.
            readout: (B, D + 1) from that call; needed where the readout adds up over segments, and by rows without a token.
            segment_offset: segments before this call, one number or (B,).
            total_segments: T of the whole sequence, one number or (B,); None means offset plus own segments.
            input_values: (B, N) floating point, instead of input_ids where the config's input_type is 'values'; patch after
                patch of patch_size values, each row whole patches. The mask is of values too.
            output_segments: give segment_pooled too, for a loss on every segment. Past a row's end it stays as it is.
            associations: (B, L, K, D + 1) from that call, in a model with associative_memory; None begins with an empty one.

        Returns:
            `RmaatOutput`. In a row without a token the state comes out as it went in.

        Raises:
            ValueError: where inputs do not fit; see `rmaat.models.checks`.
        """
        config = self.config
        tokens = one_input(input_ids, input_values, config.input_type)
        given = row_lengths(tokens, attention_mask, config.vocab_size)
        lengths = whole_patches(given, config.patch_size)
        place = place_segments(given, config.segment_span, segment_offset, total_segments, memory is not None)
        batch = len(lengths)
        check_state("memory", memory, (batch, config.num_memory_tokens, config.hidden_size))
        check_associations(associations, memory, (batch, *config.associations_shape), config.associative_memory)
        check_readout(readout, memory, (batch, config.hidden_size + 1), config.readout == "running_mean")
        if memory is None:
            memory = self.first_memory.expand(batch, -1, -1)
        # Contiguous from the first segment on, so that a compiled step meets one set of strides.
        memory = memory.to(self.first_memory.dtype).contiguous()
        # Running sums in bfloat16 would stop growing after some hundred terms.
        sum_type = torch.promote_types(memory.dtype, torch.float32)
        if readout is None:
            readout = memory.new_zeros(batch, config.hidden_size + 1)
        if associations is None:
            associations = memory.new_zeros(batch, *config.associations_shape)
        state = SegmentState(memory, readout.to(sum_type), associations.to(sum_type).contiguous())
        final, *readouts = self._run(self._cut(tokens, lengths, place), state, lengths, place, output_segments)

        def mean(readout: Tensor) -> Tensor:
            return (readout[..., :-1] / readout[..., -1:].clamp_min(1)).to(memory.dtype)

        segment_pooled = mean(readouts[0]).transpose(0, 1) if readouts else None
        associations = final.associations if config.associative_memory else None
        return RmaatOutput(mean(final.readout), final.memory, final.readout, segment_pooled, associations)

    def _cut(self, tokens: Tensor, lengths: NDArray[np.int64], place: Place) -> SegmentInputs:
        """(B, N) as segments, (T, B, S) ids or (T, B, S, P) values.

        A view where N is whole segments, since a copy of a long sequence outweighs a segment; padding by nothing copies, too.
        """
        total, size = place.longest, self.config.segment_length
        span = total * self.config.segment_span
        missing = span - tokens.shape[1]
        tokens = pad(tokens, (0, missing)) if missing > 0 else tokens[:, :span]
        if tokens.is_floating_point():
            tokens = tokens.to(self.first_memory.dtype).unflatten(1, (total * size, self.config.patch_size))
        length_TB = (lengths - size * np.arange(total)[:, None]).clip(0, size)
        return SegmentInputs(
            tokens.unflatten(1, (total, size)).transpose(0, 1),
            torch.from_numpy(length_TB).to(tokens.device),
            self._factors(place),
        )

    def _factors(self, place: Place) -> Tensor:
        """RF of each row's segments, (T, B, 1), or (T, B, M) if memory tokens differ; past a row's end it is not used."""
        config = self.config
        if config.schedule == "rotating":
            # Counted from the beginning of the whole sequence, so a streamed one goes on with the right token.
            segment_TB1 = np.arange(place.longest)[:, None, None] + place.offset[:, None]
            written_TBM = segment_TB1 % config.num_memory_tokens == np.arange(config.num_memory_tokens)
            return torch.from_numpy(written_TBM).to(self.first_memory)
        relative = config.retention_form == "relative"
        if self.retention_logits is not None:
            return learned_factors(self.retention_logits, place, relative)[..., None]
        factors_TB = np.ones((place.longest, len(place.total)))
        # As many passes as there are different T, not rows.
        for total in np.unique(place.total[place.segments > 0]):
            # Where T does not matter, powers of two, so that a long stream asks for few arrays.
            asked = int(total) if config.schedule in NEED_TOTAL else 1 << (int(total) - 1).bit_length()
            factors = retention_factors(asked, config.schedule, config.astrocyte, config.retention_constant)
            if relative:
                # In float64: over many segments the factors themselves leave float32's range.
                factors = factors / factors[:total].max()
            rows = np.flatnonzero((place.total == total) & (place.segments > 0))
            index_TB = np.arange(place.longest)[:, None] + place.offset[rows]
            factors_TB[:, rows] = factors[np.minimum(index_TB, total - 1)]
        return torch.from_numpy(factors_TB).to(self.first_memory)[..., None]

    def _run(
        self, inputs: SegmentInputs, state: SegmentState, lengths: NDArray[np.int64], place: Place, history: bool
    ) -> tuple[SegmentState, *Tensors]:
        """Return the final state and, with `history`, the readout after each segment, (T, B, D + 1)."""
        encoder, batch = self.encoder, len(place.segments)
        starts_T = self.config.segment_length * np.arange(place.longest)
        widths = encoder.widths(lengths.max(initial=0) - starts_T)
        # Drawn once, here: what is computed again in the backward pass must not depend on the mode the model is in by then.
        base = int(torch.randint(2**62, ())) if self.training and encoder.drop else None
        recomputes = torch.is_grad_enabled() and place.longest > 1 and self.backprop.recomputes
        # Take the lock in inference too: another thread's backward pass may have swapped this
        # module's weights.
        with encoder.lock, check_repeatable(encoder) if recomputes else nullcontext():
            functional = FunctionalModule(encoder, encoder.lock)

            def step(index: int, parameters: Tensors, shared: Tensors, segment: Tensors, state: Tensors) -> Tensors:
                tokens, length, factor = segment
                width, keep = widths[index], None
                if base is not None:
                    keep = encoder.keep_masks((base + index * SEED_STRIDE) % 2**63, batch, width, state[0].device)
                # Contiguous, as the state is, so that a compiled step meets one set of strides.
                given = SegmentInputs(tokens[:, :width].contiguous(), length.contiguous(), factor.contiguous())
                return functional(parameters, shared, given, SegmentState(*state), keep)

            recorded = (SegmentState._fields.index("readout"),) if history else ()
            counts = tuple(place.segments.tolist())
            shared = encoder.shared()
            recurrence = Recurrence(step, functional.parameters, shared, inputs, state, counts, recorded)
            after = self.backprop(recurrence)
        return (SegmentState(*after[: len(state)]), *after[len(state) :])


def learned_factors(logits_K: Tensor, place: Place, relative: bool = False) -> Tensor:
    """Softmax of the first `total` logits of each row, at the row's own segments [C].

    Args:
        logits_K: (num_segments,), one logit a segment index.
        place: where each row's segments stand.
        relative: divide each row's factors by their largest.

    Returns:
        (T, B), summing to 1 over a whole sequence unless relative, with gradients to the logits.

    Raises:
        UserError: for a row of more segments than there are logits.
    """
    longest = int(place.total.max(initial=0))
    if longest > len(logits_K):
        raise UserError(
            f"a sequence of {longest} segments is longer than the num_segments {len(logits_K)} that retention_schedule "
            "'learned' has factors for; raise num_segments with max_seq_len, or take 'ltp' or 'streaming'"
        )
    index = torch.arange(len(logits_K), device=logits_K.device)
    total_B = torch.from_numpy(place.total.copy()).to(logits_K.device).clamp_min(1)
    factors_KB = logits_K[:, None].where(index[:, None] < total_B, -torch.inf).softmax(0)
    if relative:
        factors_KB = factors_KB / factors_KB.amax(0)
    offset_B = torch.from_numpy(place.offset.copy()).to(logits_K.device)
    own_TB = index[: place.longest, None] + offset_B
    return factors_KB.gather(0, own_TB.clamp_max(len(logits_K) - 1))
