"""The segment step, `SegmentEncoder.forward`: from one segment and a state to the next state.

Training, replay, streaming and evaluation all call this pure function.

Axes: B batch, S tokens or patches of a segment, P values of a patch, M memory tokens, N = M + S
positions (2 M + S if memory is read and written at separate positions), D width, L layers, T
segments, K key features of the associative memory, E columns of it: D + 1, or D for the rule
'delta'.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, pad
from transformers import initialization as init

from rmaat.attention.base import CausalMixer
from rmaat.attention.causal import CausalPositions, Tensors
from rmaat.attention.precision import at_least_float32
from rmaat.layers import (
    READOUT_MASKS,
    AssociativeMemory,
    EncoderBlock,
    ShortConvolution,
    TokenEmbedding,
    ValueEmbedding,
    ZeroLinear,
    apply_dropout,
    draw_dropout_masks,
    sinusoidal_positions,
)
from rmaat.models.configuration import RmaatConfig
from rmaat.models.functional import CallLock
from rmaat.models.layout import moving_permutations, permuted
from rmaat.models.masked import MaskedHead
from rmaat.models.segment_state import NO_TOKEN_OUTPUTS, SegmentInputs, SegmentState, TokenOutputs
from rmaat.problems import IGNORED

WIDTH_STEP = 64
"""Widths of segments are rounded up to a multiple of this number of positions.

Few widths let the allocator and the kernels reuse their memory and their choices.
"""

SMALLEST_GATE = 1e-4
"""The initial gate is the retention factor, clamped to at least this and at most 1 minus this.

A gate of exactly 0 or 1 has no gradient.
"""


class SegmentEncoder(nn.Module):
    """The embedding and the layers, applied to one segment with its memory.

    `forward` is the segment step.
    """

    def __init__(self, config: RmaatConfig) -> None:
        super().__init__()
        self.config = config
        self.drop = config.hidden_dropout_prob
        self.lock = CallLock()
        self.embedding = (
            ValueEmbedding(config.patch_size, config.hidden_size)
            if config.input_type == "values"
            else TokenEmbedding(config.vocab_size, config.hidden_size)
        )
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.num_hidden_layers))
        self.convolutions = nn.ModuleList()
        if config.short_conv_size is not None:
            for _ in self.blocks:
                self.convolutions.append(ShortConvolution(config.hidden_size, config.short_conv_size))
        self.associative = nn.ModuleList(AssociativeMemory(config) for _ in range(config.associations_shape[0]))
        # The last M memory positions are written. With memory_layout 'read_write', M positions that
        # are only read precede them.
        first_written = config.memory_positions - config.num_memory_tokens
        self.written = slice(first_written, config.memory_positions)
        # The offset distinguishes written from read positions, which start with the same vectors.
        self.write_offset = (
            nn.Parameter(torch.empty(config.num_memory_tokens, config.hidden_size)) if first_written else None
        )
        self.gate = ZeroLinear(2 * config.hidden_size, config.hidden_size) if config.retention_form == "gate" else None
        self.masked_head = MaskedHead(config) if config.masked_head else None
        self.token_classifier: nn.Linear | None = None
        self.final_norm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.norm_first else nn.Identity()
        )
        self._readout_mask = READOUT_MASKS[config.readout]
        self._readout_adds_up = config.readout == "running_mean"

    def initialise(self) -> None:
        """Draw the offset between the read and the written memory positions."""
        if self.write_offset is not None:
            init.normal_(self.write_offset, std=0.02)

    def layers(self) -> list[EncoderBlock]:
        """The layers, first to last."""
        return [cast(EncoderBlock, block) for block in self.blocks]

    def _associative(self, index: int) -> AssociativeMemory:
        return cast(AssociativeMemory, self.associative[index])

    def shared(self) -> tuple[Tensor, ...]:
        """Return the tensors that depend on the parameters only, computed once per call.

        They are the positions (S, D), followed by one tensor for each layer whose attention has one.
        """
        like = next(self.parameters())
        positions = sinusoidal_positions(self.config.positions_per_segment, self.config.hidden_size, like)
        if not self.config.positional_encoding:
            positions = torch.zeros_like(positions)
        per_layer = (block.mixer.shared() for block in self.layers())
        return (positions, *(x for x in per_layer if x is not None))

    def widths(self, lengths_T: NDArray[np.int64]) -> list[int]:
        """Return the number of tokens or patches to compute for each segment, at most S.

        Padding behind all rows' tokens changes no result, so it is left out.

        Args:
            lengths_T: (T,), the tokens or patches of the longest row in each segment; a segment that
                is not the last may have more than S.
        """
        # A compiled step would compile again for each width, so it computes whole segments.
        whole = self.config.positions_per_segment
        if self._compiled_call_impl is not None:
            return [whole] * len(lengths_T)
        return np.minimum(-(-lengths_T // WIDTH_STEP) * WIDTH_STEP, whole).tolist()

    def dropout_masks(self, seed: int, batch: int, width: int, device: torch.device) -> Tensor:
        """Return the dropout masks of one segment, (1 + 2 L, B, N, D) bool; True keeps a value.

        They depend on the arguments only, so a recomputed segment has equal masks.

        Args:
            seed: the seed of the segment.
            batch: B.
            width: S, the number of tokens or patches that are computed.
            device: the device of the masks.
        """
        # One mask for the embedded tokens, then DROPOUT_SITES for each layer.
        sites = 1 + len(self.blocks) * EncoderBlock.DROPOUT_SITES
        shape = (sites, batch, self.config.memory_positions + width, self.config.hidden_size)
        return draw_dropout_masks(seed, shape, self.drop, device)

    def forward(
        self,
        shared: tuple[Tensor, ...],
        inputs: SegmentInputs,
        state: SegmentState,
        dropout_masks: Tensor | None,
        wanted: TokenOutputs = NO_TOKEN_OUTPUTS,
    ) -> SegmentState:
        """Compute one segment: return the state after it.

        h_t = encoder([mem_t ; embed(x_t)]),  mem_{t+1} = RF(t, T) h_t[:M]  [P]. The readout is
        taken before RF [C].

        With an associative memory, each layer first adds to every position the value that the
        position recalls. After the layer, the memory positions (or all positions) write their
        outputs for the next segment. docs/explanation/retention.md describes the other forms of
        retention and the layouts of the memory.

        Args:
            shared: the result of `shared()`.
            inputs: the inputs of one segment, without the leading axis. Their S is at most
                `positions_per_segment`.
            state: the state before the segment.
            dropout_masks: the result of `dropout_masks()`, or None for no dropout.
            wanted: the results for each token to put into `token_outputs`.

        Returns:
            The state after the segment. Rows without a token keep their state.
        """
        positions_SD, *layer_shared = shared
        num_memory = self.config.memory_positions
        width = inputs.tokens.shape[1]
        positions_N = torch.arange(num_memory + width, device=inputs.tokens.device)
        mask_BN = positions_N < num_memory + inputs.length[:, None]
        # Replace padding by 0, because it may hold ids outside the vocabulary or values like NaN.
        padding_BS = ~mask_BN[:, num_memory:]
        tokens = inputs.tokens.masked_fill(padding_BS[..., None] if inputs.tokens.dim() == 3 else padding_BS, 0)
        tokens_BSD = self.embedding(tokens, positions_SD[:width])
        masked_BS = None
        if self.masked_head is not None and inputs.masked.shape[1]:
            masked_BS = inputs.masked & ~padding_BS
            tokens_BSD = self.masked_head.hide(tokens_BSD, positions_SD[:width], masked_BS)
        if dropout_masks is not None:
            tokens_BSD = apply_dropout(tokens_BSD, dropout_masks[0][:, num_memory:], self.drop)
        memory_BMD = state.memory.to(tokens_BSD.dtype)
        # Place the memory at the front in every layout. In 'read_write', M positions that are read
        # precede M that are written; otherwise the same M are read and written.
        copies = [memory_BMD]
        if self.write_offset is not None:
            copies.append(memory_BMD + self.write_offset.to(memory_BMD.dtype))
        x_BND = torch.cat([*copies, tokens_BSD], dim=1)
        # Other layouts permute the positions. In a causal segment the written positions follow all
        # positions of tokens, padding too, so that their index is the same in every segment.
        count, causal = self.config.num_memory_tokens, self.config.causal
        moved = self.config.layout != "front" and count > 0
        if moved:
            passed_B = torch.full_like(inputs.length, width) if causal else inputs.length
            order_BN, inverse_BN = moving_permutations(self.written.start, count, passed_B, x_BND.shape[1])
            x_BND = permuted(x_BND, order_BN)
        layer_mask_BN = mask_BN.gather(1, order_BN) if moved and causal else mask_BN
        # The convolution must skip the memory, so it needs to know the positions of the tokens.
        tokens_BN = None
        if self.convolutions and not causal:
            tokens_BN = mask_BN & (positions_N >= num_memory)
            tokens_BN = tokens_BN.gather(1, order_BN) if moved else tokens_BN
        if causal:
            places = self.places(width, layer_mask_BN)
        per_layer = iter(layer_shared)
        # A row that has ended keeps its state, bit for bit.
        active_B1 = inputs.length[:, None] > 0
        # Every position reads the associations from before the segment. The retention factor scales
        # only the matrix to which the write adds.
        stored = self._kept(state.associations, inputs.factor.where(active_B1, 1))
        all_write = self.config.associative_writers == "all"
        writes_BW = layer_mask_BN & active_B1 if all_write else active_B1
        read_LBKE, stored_LBKE, written_LBKE = state.associations.unbind(1), stored.unbind(1), []
        hidden_LBSD = [tokens_BSD] if wanted.hidden_states else []
        for index, block in enumerate(self.layers()):
            first_site = 1 + index * EncoderBlock.DROPOUT_SITES
            block_masks = (
                None if dropout_masks is None else dropout_masks[first_site : first_site + EncoderBlock.DROPOUT_SITES]
            )
            x_BND = self.recalled(index, x_BND, read_LBKE)
            if causal:
                beginning = self.start(index, x_BND)
                x_BND, _ = self.causal_layer(index, x_BND, places, next(per_layer, None), block_masks, beginning)
            else:
                if tokens_BN is not None:
                    x_BND = self.convolutions[index](x_BND, tokens_BN)
                x_BND = block(x_BND, mask_BN, next(per_layer, None), block_masks)
            if wanted.hidden_states and index + 1 < len(self.blocks):
                hidden_LBSD.append((permuted(x_BND, inverse_BN) if moved else x_BND)[:, num_memory:])
            if self.associative:
                # The memory positions write the layer's output; undo the layout to find them.
                writers_BWD = x_BND
                if not all_write:
                    writers_BWD = permuted(x_BND, inverse_BN[:, self.written]) if moved else x_BND[:, self.written]
                written_LBKE.append(self._associative(index).write(writers_BWD, stored_LBKE[index], writes_BW))
        # Move the memory back to the front, because the readout and the state expect it there.
        if moved:
            x_BND = permuted(x_BND, inverse_BN)
        x_BND = self.final_norm(x_BND)

        tokens_out_BSD = x_BND[:, num_memory:]
        memory = self.retained(x_BND[:, self.written], state.memory, inputs.factor[..., None])
        # The readout is a sum and a count, so that means over several segments can add up.
        read_BN = self._readout_mask(mask_BN, num_memory)
        x_BND = at_least_float32(x_BND).masked_fill(~read_BN[..., None], 0)
        count_B1 = read_BN.sum(1, keepdim=True).to(x_BND.dtype)
        readout = torch.cat([x_BND.sum(1), count_B1], dim=1).to(state.readout.dtype)
        if self._readout_adds_up:
            readout = state.readout + readout
        associations = torch.stack(written_LBKE, dim=1) if written_LBKE else state.associations
        # Losses travel in the state, so replay treats them as any other output of the segment.
        loss_sums, losses_BS, correct_BS = state.loss_sums, None, None
        if masked_BS is not None and self.masked_head is not None:
            loss_sums = loss_sums + self.masked_head(tokens_out_BSD, tokens, masked_BS).to(loss_sums.dtype)
        if inputs.labels.shape[1]:
            labels_BS = inputs.labels.masked_fill(padding_BS, IGNORED)
            losses_BS, correct_BS = self._compared(tokens_out_BSD, labels_BS, wanted.correct)
            pair_B2 = torch.stack([losses_BS.sum(1), (labels_BS != IGNORED).sum(1)], -1)
            loss_sums = loss_sums + pair_B2.to(loss_sums.dtype)
        outputs = [*hidden_LBSD, tokens_out_BSD] if wanted.hidden_states else []
        if wanted.last_hidden:
            outputs.append(tokens_out_BSD)
        if wanted.losses:
            assert losses_BS is not None
            outputs.append(losses_BS[..., None])
        if wanted.correct:
            assert correct_BS is not None
            outputs.append(correct_BS[..., None])
        if self.token_classifier is not None:
            outputs.append(self.token_classifier(tokens_out_BSD))
        token_outputs = state.token_outputs
        if outputs:
            features_BSF = torch.cat([x.to(token_outputs.dtype) for x in outputs], dim=-1)
            features_BSF = features_BSF.masked_fill(padding_BS[..., None], 0)
            # A narrow segment is filled up, because states have one shape.
            token_outputs = pad(features_BSF, (0, 0, 0, token_outputs.shape[1] - width))
        return SegmentState(
            torch.where(active_B1[..., None], memory, state.memory),
            torch.where(active_B1, readout, state.readout),
            associations,
            loss_sums,
            token_outputs,
        )

    def recalled(self, layer: int, x_BND: Tensor, associations_LBKE: Sequence[Tensor]) -> Tensor:
        """Return a layer's input with what each position recalls from the associative memory, if there is one."""
        if not self.associative:
            return x_BND
        return x_BND + self._associative(layer).read(x_BND, associations_LBKE[layer])

    def _kept(self, associations_BLKE: Tensor, factor_B1: Tensor) -> Tensor:
        """Return the associations to which a segment adds."""
        retained = self.config.associative_retention
        return associations_BLKE * factor_B1[..., None, None] if retained else associations_BLKE

    def written_associations(
        self, associations_BLKE: Tensor, outputs_LBMD: Sequence[Tensor], factor_B1: Tensor, writes_B1: Tensor
    ) -> Tensor:
        """Return the associations after the memory positions wrote the outputs of all layers."""
        stored_LBKE = self._kept(associations_BLKE, factor_B1).unbind(1)
        written = [
            self._associative(layer).write(x, stored, writes_B1)
            for layer, (x, stored) in enumerate(zip(outputs_LBMD, stored_LBKE, strict=True))
        ]
        return torch.stack(written, 1)

    def next_token_logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the next token, (..., D) -> (..., V), in at least float32.

        The embeddings are the output weights too, divided by sqrt(D) [C: as in T5, arXiv
        1910.10683], because they have variance 1.
        """
        assert isinstance(self.embedding, TokenEmbedding)
        weight_VD = self.embedding.tokens.weight
        return at_least_float32(linear(hidden * weight_VD.shape[1] ** -0.5, weight_VD.to(hidden.dtype)))

    def _compared(self, hidden_BSD: Tensor, labels_BS: Tensor, correct: bool) -> tuple[Tensor, Tensor | None]:
        """Return the loss of each label and, if asked for, whether it has the largest logit, (B, S) both.

        They are 0 and False without a label. No logits leave this method: they would take V numbers for
        each token of the sequence.
        """
        asked_BS = labels_BS != IGNORED
        # The number of labels differs from segment to segment; a compiled graph computes the logits of
        # all tokens instead.
        everywhere = torch.compiler.is_compiling()
        hidden_ID, labels_I = (x.flatten(0, 1) if everywhere else x[asked_BS] for x in (hidden_BSD, labels_BS))
        logits_IV = self.next_token_logits(hidden_ID)

        def placed(x_I: Tensor) -> Tensor:
            if everywhere:
                return x_I.view_as(labels_BS)
            return torch.zeros_like(labels_BS, dtype=x_I.dtype).masked_scatter(asked_BS, x_I)

        losses_I = cross_entropy(logits_IV, labels_I, ignore_index=IGNORED, reduction="none")
        return placed(losses_I), placed(logits_IV.argmax(-1) == labels_I) if correct else None

    def start(self, layer: int, like_BND: Tensor) -> Tensors:
        """Return what a layer of a causal segment carries from piece to piece, at the beginning.

        The first tensor is that of the convolution, if there is one; the others are the mixer's.
        """
        batch, _, width = like_BND.shape
        taps = self.config.short_conv_size
        before = () if taps is None else (like_BND.new_zeros(batch, taps - 1, width),)
        mixer = self.layers()[layer].mixer
        assert isinstance(mixer, CausalMixer)
        return (*before, *mixer.start(batch, like_BND))

    def places(self, width: int, mask_BN: Tensor) -> CausalPositions:
        """Return the positions of a causal segment of `width` tokens: memory, tokens, memory."""
        count, positions = self.config.num_memory_tokens, torch.arange(self.config.num_positions, device=mask_BN.device)
        index_N = torch.cat([positions[: count + width], positions[len(positions) - count :]])
        return CausalPositions(index_N[None], mask_BN, slice(count, count + width))

    def causal_layer(
        self,
        layer: int,
        x_BND: Tensor,
        places: CausalPositions,
        shared: Tensor | None,
        dropout_masks: Tensor | None,
        carried: Tensors,
    ) -> tuple[Tensor, Tensors]:
        """Return a layer's output for a piece of a causal segment, and the state for the next piece."""
        before: Tensors = ()
        if self.convolutions:
            first, *rest = carried
            tokens = places.tokens
            if tokens.stop > tokens.start:
                convolution = cast(ShortConvolution, self.convolutions[layer])
                tokens_BCD, first = convolution.advance(x_BND[:, tokens], places.mask[:, tokens], first)
                x_BND = torch.cat([x_BND[:, : tokens.start], tokens_BCD, x_BND[:, tokens.stop :]], 1)
            before, carried = (first,), tuple(rest)
        x_BND, carried = self.layers()[layer].advance(x_BND, places, shared, dropout_masks, carried)
        return x_BND, (*before, *carried)

    def retained(self, new_BMD: Tensor, old_BMD: Tensor, factor_BM1: Tensor) -> Tensor:
        """Return the memory for the next segment, (B, M, D): the retention_form of the config.

        Args:
            new_BMD: the layers' output at the written memory positions.
            old_BMD: the memory before the segment.
            factor_BM1: the retention factor RF, (B, 1, 1) if all memory tokens have the same.
        """
        if self.gate is not None:
            # The gate equals RF as long as the learned part is 0. RF is clamped, because the logit
            # is infinite at 0 and 1.
            initial_BM1 = at_least_float32(factor_BM1).clamp(SMALLEST_GATE, 1 - SMALLEST_GATE).logit()
            learned_BMD = at_least_float32(self.gate(torch.cat([new_BMD, old_BMD.to(new_BMD.dtype)], -1)))
            new_weight = (learned_BMD + initial_BM1).sigmoid()
        elif self.config.retention_form == "interpolate":
            new_weight = at_least_float32(factor_BM1)
        else:
            # 'scale', and 'relative', whose factors were divided by their largest before.
            return (new_BMD * factor_BM1).to(old_BMD.dtype)
        return (new_weight * new_BMD + (1 - new_weight) * old_BMD).to(old_BMD.dtype)
