"""The segment step: the one pure function that training, replay, streaming and evaluation all call.

Axes: B batch, S tokens or patches of a segment, P values of a patch, M memory tokens, N = M + S positions (2 M + S if
memory is read and written apart), D width, L layers, T segments, K key features of the associative memory, E = D + 1.
"""

from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rmaat.attention.precision import at_least_float32
from rmaat.layers import (
    READOUT_SUMS,
    AssociativeMemory,
    EncoderBlock,
    ShortConvolution,
    TokenEmbedding,
    ValueEmbedding,
    ZeroLinear,
    apply_dropout,
    draw_keep_masks,
    sinusoidal_positions,
)
from rmaat.models.configuration import RmaatConfig
from rmaat.models.functional import CallLock
from rmaat.models.layout import moved_behind, rearranged

WIDTH_STEP = 64
"""Segments are computed in multiples of so many positions, so that memory and kernels meet few sizes."""


SMALLEST_GATE = 1e-4
"""The gate begins at a retention factor that is clamped to this and 1 minus this: at 0 or 1 it would have no gradient."""


class SegmentInputs(NamedTuple):
    """What the segments are given, each with a leading axis T (or, for one segment, without it).

    Attributes:
        tokens: (T, B, S) integer token ids, or (T, B, S, P) floating-point values; what stands behind a row's tokens is not read.
        length: (T, B) int64, the row's tokens or patches in the segment, 0 .. S; where it is 0 the state passes through untouched.
        factor: (T, B, 1) retention factors on the memory that the segment hands on, or (T, B, M), one a memory token.
    """

    tokens: Tensor
    length: Tensor
    factor: Tensor


class SegmentState(NamedTuple):
    """What is carried from segment to segment.

    Attributes:
        memory: (B, M, D), after the retention factor.
        readout: (B, D + 1), the sum of what the head reads and, last, the number of positions in that sum.
        associations: (B, L, K, E), what the associative memory of each layer holds; L is 0 without it.
    """

    memory: Tensor
    readout: Tensor
    associations: Tensor


class SegmentEncoder(nn.Module):
    """Embedding and layers on one segment with its memory; its forward is the segment step."""

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
        # The memory is written behind the read positions, if there are any.
        first_written = config.memory_positions - config.num_memory_tokens
        self.written = slice(first_written, config.memory_positions)
        # Without it, positions that read and that write would be alike to most attention types.
        self.write_offset = (
            nn.Parameter(torch.empty(config.num_memory_tokens, config.hidden_size)) if first_written else None
        )
        self.gate = ZeroLinear(2 * config.hidden_size, config.hidden_size) if config.retention_form == "gate" else None
        self.final_norm = (
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.norm_first else nn.Identity()
        )
        self._readout_sum = READOUT_SUMS[config.readout]
        self._readout_adds_up = config.readout == "running_mean"

    def layers(self) -> list[EncoderBlock]:
        """The layers, first to last."""
        return [cast(EncoderBlock, block) for block in self.blocks]

    def _associative(self, index: int) -> AssociativeMemory:
        return cast(AssociativeMemory, self.associative[index])

    def shared(self) -> tuple[Tensor, ...]:
        """What depends on parameters alone: positions (S, D), then each layer's own, where it has any."""
        like = next(self.parameters())
        positions = sinusoidal_positions(self.config.segment_length, self.config.hidden_size, like)
        if not self.config.positional_encoding:
            positions = torch.zeros_like(positions)
        own = (block.mixer.shared() for block in self.layers())
        return (positions, *(x for x in own if x is not None))

    def widths(self, lengths_T: NDArray[np.int64]) -> list[int]:
        """How wide each segment is computed, its longest row having so many tokens or patches.

        What is behind all rows' tokens changes nothing and is left out. A compiled step would be compiled anew for each width, so
        its segments are whole.
        """
        whole = self.config.segment_length
        if self._compiled_call_impl is not None:
            return [whole] * len(lengths_T)
        return np.minimum(-(-lengths_T // WIDTH_STEP) * WIDTH_STEP, whole).tolist()

    def keep_masks(self, seed: int, batch: int, width: int, device: torch.device) -> Tensor:
        """The dropout masks of one segment of S = `width` tokens, (1 + 2 L, B, N, D) bool, a function of the arguments."""
        sites = 1 + len(self.blocks) * EncoderBlock.DROPOUT_SITES
        shape = (sites, batch, self.config.memory_positions + width, self.config.hidden_size)
        return draw_keep_masks(seed, shape, self.drop, device)

    def forward(
        self, shared: tuple[Tensor, ...], inputs: SegmentInputs, state: SegmentState, keep: Tensor | None
    ) -> SegmentState:
        """One segment: memory and tokens through all layers, then what stands at the memory positions, scaled, is handed on.

        h_t = encoder([mem_t ; embed(x_t)]),  mem_{t+1} = RF(t, T) h_t[:M]  [P]. The readout is taken before RF [C].

        With an associative memory, each layer first adds to every position the value that the position recalls. After the
        layer, the memory positions (or all positions) write their outputs for the next segment.
        docs/explanation/retention.md describes the other forms of retention and the layouts of the
        memory.

        Args:
            shared: as `shared()` gives it.
            inputs: those of one segment, without the leading axis; of S up to segment_length tokens or patches.
            state: the state before the segment.
            keep: as `keep_masks()` gives it, or None to drop nothing.

        Returns:
            The state after the segment; unchanged in rows without a token.
        """
        positions_SD, *layer_shared = shared
        num_memory = self.config.memory_positions
        width = inputs.tokens.shape[1]
        positions_N = torch.arange(num_memory + width, device=inputs.tokens.device)
        mask_BN = positions_N < num_memory + inputs.length[:, None]
        absent_BS = ~mask_BN[:, num_memory:]
        tokens = inputs.tokens.masked_fill(absent_BS[..., None] if inputs.tokens.dim() == 3 else absent_BS, 0)
        tokens_BSD = self.embedding(tokens, positions_SD[:width])
        if keep is not None:
            tokens_BSD = apply_dropout(tokens_BSD, keep[0][:, num_memory:], self.drop)
        memory_BMD = state.memory.to(tokens_BSD.dtype)
        # Memory comes first here whatever the layout: the first M positions are read, M more are written in 'read_write'.
        copies = [memory_BMD]
        if self.write_offset is not None:
            copies.append(memory_BMD + self.write_offset.to(memory_BMD.dtype))
        x_BND = torch.cat([*copies, tokens_BSD], dim=1)
        # The layers see other layouts as a permutation of the positions, so masks and dropout need no cases of their own.
        moved = self.config.memory_layout != "front"
        if moved:
            count = self.config.num_memory_tokens
            order_BN, places_BN = moved_behind(self.written.start, count, inputs.length, x_BND.shape[1])
            x_BND = rearranged(x_BND, order_BN)
        tokens_BN = None
        if self.convolutions:
            tokens_BN = mask_BN & (positions_N >= num_memory)
            tokens_BN = tokens_BN.gather(1, order_BN) if moved else tokens_BN
        per_layer = iter(layer_shared)
        # Every position reads the state before the segment; the retention factor applies to what the write starts from.
        # A row that has ended keeps its state, bit for bit.
        active_B1 = inputs.length[:, None] > 0
        stored = state.associations
        if self.config.associative_retention:
            stored = stored * inputs.factor.where(active_B1, 1)[..., None, None]
        all_write = self.config.associative_writers == "all"
        writes_BW = mask_BN & active_B1 if all_write else active_B1
        read_LBKE, stored_LBKE, written_LBKE = state.associations.unbind(1), stored.unbind(1), []
        for index, block in enumerate(self.layers()):
            first_site = 1 + index * EncoderBlock.DROPOUT_SITES
            keep_block = None if keep is None else keep[first_site : first_site + EncoderBlock.DROPOUT_SITES]
            if self.associative:
                x_BND = x_BND + self._associative(index).read(x_BND, read_LBKE[index])
            if tokens_BN is not None:
                x_BND = self.convolutions[index](x_BND, tokens_BN)
            x_BND = block(x_BND, mask_BN, next(per_layer, None), keep_block)
            if self.associative:
                writers_BWD = x_BND
                if not all_write:
                    writers_BWD = rearranged(x_BND, places_BN[:, self.written]) if moved else x_BND[:, self.written]
                written_LBKE.append(self._associative(index).write(writers_BWD, stored_LBKE[index], writes_BW))
        # Back to memory first, which the readout and the state rely on.
        if moved:
            x_BND = rearranged(x_BND, places_BN)
        x_BND = self.final_norm(x_BND)

        memory = self._retained(x_BND[:, self.written], state.memory, inputs.factor[..., None])
        read_BN = self._readout_sum(mask_BN, num_memory)
        x_BND = at_least_float32(x_BND).masked_fill(~read_BN[..., None], 0)
        count_B1 = read_BN.sum(1, keepdim=True).to(x_BND.dtype)
        readout = torch.cat([x_BND.sum(1), count_B1], dim=1).to(state.readout.dtype)
        if self._readout_adds_up:
            readout = state.readout + readout
        associations = torch.stack(written_LBKE, dim=1) if written_LBKE else state.associations
        return SegmentState(
            torch.where(active_B1[..., None], memory, state.memory),
            torch.where(active_B1, readout, state.readout),
            associations,
        )

    def _retained(self, new_BMD: Tensor, old_BMD: Tensor, factor_BM1: Tensor) -> Tensor:
        """The memory handed on, (B, M, D), of that written and that of before, in the form that the config names.

        factor_BM1 is (B, 1, 1) if all memory tokens have the same.
        """
        if self.gate is not None:
            # The logit makes the gate equal to the factor as long as the learned part is 0. It is infinite at 0 and 1.
            at_start_BM1 = at_least_float32(factor_BM1).clamp(SMALLEST_GATE, 1 - SMALLEST_GATE).logit()
            learned_BMD = at_least_float32(self.gate(torch.cat([new_BMD, old_BMD.to(new_BMD.dtype)], -1)))
            share = (learned_BMD + at_start_BM1).sigmoid()
        elif self.config.retention_form == "interpolate":
            share = at_least_float32(factor_BM1)
        else:
            return (new_BMD * factor_BM1).to(old_BMD.dtype)
        return (share * new_BMD + (1 - share) * old_BMD).to(old_BMD.dtype)
