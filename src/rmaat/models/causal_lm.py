"""`RmaatForCausalLM`, a language model that reads and writes without end in constant memory.

Axes: B batch, N tokens, C tokens of a piece, M memory tokens, D width, V ids of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import GenerationMixin
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from rmaat.attention.causal import CausalPositions, Tensors
from rmaat.errors import UserError
from rmaat.models.causal_cache import RmaatCache
from rmaat.models.checks import SegmentRange, check_attentions, row_lengths, select_input
from rmaat.models.configuration import RmaatConfig
from rmaat.models.head import RmaatPreTrainedHead
from rmaat.models.masked import mean_loss
from rmaat.models.recurrent import RmaatModel
from rmaat.models.retention import batch_factors
from rmaat.problems import IGNORED


@dataclass
class RmaatCausalLMOutput(ModelOutput):
    """The result of `RmaatForCausalLM`.

    Attributes:
        loss: mean cross-entropy of the labels, (); None without labels.
        logits: (B, n, V) of the tokens after the last n; None if labels are given, unless
            logits_to_keep asks for them.
        past_key_values: the state after the last token; None without use_cache.
        token_losses: (B, N), the loss of predicting each token from those before it; 0 for the
            first one and without a label. None without output_token_losses.
        token_correct: (B, N) bool, whether each label has the largest logit of all ids; False for the
            first one and without a label. None without output_token_correct.
        memory, readout, associations: the state for a call that goes on, see `RmaatOutput`.
        hidden_states: see `RmaatOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: RmaatCache | None = None
    token_losses: Tensor | None = None
    token_correct: Tensor | None = None
    memory: Tensor | None = None
    readout: Tensor | None = None
    associations: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class RmaatForCausalLM(RmaatPreTrainedHead, GenerationMixin):
    """RMAAT that predicts each next token, with the embeddings as output weights.

    Training takes the memory of one segment: the segment step adds up the losses, and replay gives
    the exact gradient. `generate` carries an `RmaatCache`, whose size does not grow.
    """

    def __init__(self, config: RmaatConfig) -> None:
        super().__init__(config)
        if not config.causal or config.input_type != "tokens":
            raise UserError("RmaatForCausalLM needs a config with causal: true and input_type 'tokens'")
        self.rmaat = RmaatModel(config)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        # `generate` then leaves the cache to the first call of `forward`.
        return False

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: RmaatCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | None = None,
        memory: Tensor | None = None,
        readout: Tensor | None = None,
        associations: Tensor | None = None,
        segment_offset: int | Tensor = 0,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        output_token_losses: bool = False,
        output_token_correct: bool = False,
    ) -> RmaatCausalLMOutput:
        """Predict the next token of each token; `RmaatModel.forward` describes the other arguments.

        Args:
            attention_mask: (B, N), ones then zeros in each row. With a cache each row may have
                zeros on the left instead, as `generate` asks for, and a mask of all tokens so far.
            labels: (B, N) int64, the ids themselves: token n predicts label n + 1. Those of -100
                have no part in the loss.
            past_key_values: the state after the tokens before, as returned with use_cache.
            use_cache: go on from past_key_values, or from the beginning, token by token if need be,
                and return the state. There is no dropout then. `generate` does so.
            logits_to_keep: return the logits of this many last positions; 0 means all, which takes
                memory for the whole sequence. None means all without labels and none with them. With
                a cache, 1 means each row's last token.
            output_token_losses: return token_losses.
            output_token_correct: return token_correct.
        """
        if use_cache or past_key_values is not None:
            given = (labels, memory, readout, associations, inputs_embeds)
            asked = (output_token_losses, output_token_correct, output_hidden_states)
            if any(x is not None for x in given) or any(asked):
                raise UserError("a call with use_cache or past_key_values takes only input_ids and attention_mask")
            check_attentions(output_attentions)
            ids_BN = select_input(input_ids, None, None, self.config)
            with self.rmaat.encoder.lock:
                return self._cached(ids_BN, attention_mask, past_key_values, logits_to_keep or 0)
        if logits_to_keep is None and labels is None:
            logits_to_keep = 0
        shifted = None
        if labels is not None:
            if attention_mask is not None and attention_mask.shape == labels.shape:
                labels = labels.masked_fill(~attention_mask.bool(), IGNORED)
            shifted = pad(labels[:, 1:], (0, 1), value=IGNORED)
        out = self.rmaat(
            input_ids,
            attention_mask,
            memory,
            readout,
            segment_offset,
            associations=associations,
            inputs_embeds=inputs_embeds,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            labels=shifted,
            output_last_hidden=logits_to_keep is not None,
            output_token_losses=output_token_losses,
            output_token_correct=output_token_correct,
            return_dict=True,
        )
        logits = None
        if logits_to_keep is not None:
            logits = self.rmaat.encoder.next_token_logits(out.last_hidden[:, -logits_to_keep:])
        losses, correct = out.token_losses, out.token_correct
        return RmaatCausalLMOutput(
            loss=mean_loss(out.label_loss),
            logits=logits,
            token_losses=None if losses is None else pad(losses[:, :-1], (1, 0)),
            token_correct=None if correct is None else pad(correct[:, :-1], (1, 0)),
            memory=out.memory,
            readout=out.readout,
            associations=out.associations,
            hidden_states=out.hidden_states,
        )

    def empty_cache(self, batch: int) -> RmaatCache:
        """Return the state before the first token of `batch` texts."""
        first, config, encoder = self.rmaat.first_memory, self.config, self.rmaat.encoder
        zeros_B = torch.zeros(batch, dtype=torch.int64, device=first.device)
        shape, wide = (batch, *config.associations_shape), torch.promote_types(first.dtype, torch.float32)
        # Positions that write at the end of the segment need their outputs until then.
        kept = config.num_positions if config.associative_memory and config.associative_writers == "all" else 0
        cache = RmaatCache(
            memory=first.expand(batch, -1, -1),
            associations=torch.zeros(shape, dtype=wide, device=first.device),
            segment=zeros_B,
            position=zeros_B,
            layers=self._empty_layers(batch),
            outputs=first.new_zeros(batch, config.num_hidden_layers, kept, config.hidden_size),
            shared=encoder.shared(),
            tokens_per_segment=config.tokens_per_segment,
        )
        self._begin_segment(cache, torch.ones_like(zeros_B, dtype=torch.bool))
        return cache

    def _empty_layers(self, batch: int) -> list[Tensors]:
        like_BND = self.rmaat.first_memory.new_empty(batch, 0, self.config.hidden_size)
        return [self.rmaat.encoder.start(layer, like_BND) for layer in range(self.config.num_hidden_layers)]

    def _cached(
        self, input_ids: Tensor, attention_mask: Tensor | None, cache: RmaatCache | None, logits_to_keep: int
    ) -> RmaatCausalLMOutput:
        """Read the tokens piece by piece, each within a segment of its row."""
        ids_BN, length_B, left_B = _aligned(input_ids, attention_mask)
        mask_BN = torch.arange(ids_BN.shape[1], device=ids_BN.device) < length_B[:, None]
        row_lengths(ids_BN, mask_BN, self.config.vocab_size)
        if cache is None:
            cache = self.empty_cache(len(ids_BN))
        elif not isinstance(cache, RmaatCache):
            raise UserError(f"past_key_values must be an RmaatCache of this model, not {type(cache).__name__}")
        size, read_B = self.config.tokens_per_segment, torch.zeros_like(length_B)
        # The output for the last token alone needs no memory for the whole input.
        last_only = logits_to_keep == 1
        kept = 1 if last_only else ids_BN.shape[1]
        hidden_BND = self.rmaat.first_memory.new_zeros(len(ids_BN), kept, self.config.hidden_size)
        while bool((read_B < length_B).any()):
            full_B = (cache.position == size) & (read_B < length_B)
            if bool(full_B.any()):
                self._end_segment(cache, full_B)
                self._begin_segment(cache, full_B)
            count_B = (length_B - read_B).minimum(size - cache.position)
            piece_BC = read_B[:, None] + torch.arange(int(count_B.max()), device=ids_BN.device)
            mask_BC = piece_BC < (read_B + count_B)[:, None]
            piece_BC = piece_BC.clamp_max(ids_BN.shape[1] - 1)
            out_BCD = self._read_tokens(cache, ids_BN.gather(1, piece_BC), mask_BC)
            if last_only:
                last_B11 = (count_B - 1).clamp_min(0)[:, None, None].expand(-1, 1, out_BCD.shape[2])
                hidden_BND = _rows(count_B > 0, out_BCD.gather(1, last_B11), hidden_BND)
            else:
                place_BCD = piece_BC[..., None].expand_as(out_BCD)
                hidden_BND = hidden_BND.scatter_add(1, place_BCD, out_BCD.masked_fill(~mask_BC[..., None], 0))
            read_B = read_B + count_B
        if not last_only:
            # Back to the places of the input, where the rows may have begun later.
            place_BN = (torch.arange(kept, device=ids_BN.device) - left_B[:, None]).clamp_min(0)
            hidden_BND = hidden_BND.gather(1, place_BN[..., None].expand_as(hidden_BND))
        logits = self.rmaat.encoder.next_token_logits(hidden_BND[:, -logits_to_keep:])
        return RmaatCausalLMOutput(logits=logits, past_key_values=cache, memory=cache.memory)

    def _begin_segment(self, cache: RmaatCache, rows_B: Tensor) -> None:
        """Let these rows read their memory at the front of a new segment."""
        count, empty = self.config.num_memory_tokens, self._empty_layers(len(rows_B))
        cache.layers = [
            tuple(_rows(rows_B, new, old) for new, old in zip(*pair, strict=True))
            for pair in zip(empty, cache.layers, strict=True)
        ]
        cache.outputs = _rows(rows_B, torch.zeros_like(cache.outputs), cache.outputs)
        index_1M = torch.arange(count, device=rows_B.device)[None]
        places = CausalPositions(index_1M, rows_B[:, None].expand(-1, count), slice(0, 0))
        self._advance(cache, cache.memory, places)
        cache.position = cache.position.masked_fill(rows_B, 0)

    def _read_tokens(self, cache: RmaatCache, ids_BC: Tensor, mask_BC: Tensor) -> Tensor:
        """Read tokens within the current segment of each row; return the last layer's output, (B, C, D)."""
        width, positions_SD = ids_BC.shape[1], cache.shared[0]
        place_BC = cache.position[:, None] + torch.arange(width, device=ids_BC.device)
        # Positions that are not in use may lie behind the segment.
        place_BC = place_BC.clamp_max(len(positions_SD) - 1)
        x_BCD = self.rmaat.encoder.embedding(ids_BC.masked_fill(~mask_BC, 0), positions_SD[place_BC])
        places = CausalPositions(place_BC + self.config.num_memory_tokens, mask_BC, slice(0, width))
        out_BCD, _ = self._advance(cache, x_BCD, places)
        cache.position = cache.position + mask_BC.sum(1)
        return out_BCD

    def _end_segment(self, cache: RmaatCache, rows_B: Tensor) -> None:
        """Let these rows write their memory at the back of the current segment."""
        config, encoder, count = self.config, self.rmaat.encoder, self.config.num_memory_tokens
        segment_B = cache.segment.cpu().numpy()
        following = SegmentRange(np.ones_like(segment_B), segment_B, segment_B + 1)
        (factor_B1,) = batch_factors(config, None, following).to(cache.memory)
        index_1M = torch.arange(config.num_positions - count, config.num_positions, device=rows_B.device)[None]
        places = CausalPositions(index_1M, rows_B[:, None].expand(-1, count), slice(0, 0))
        memory = cache.memory if encoder.write_offset is None else cache.memory + encoder.write_offset
        out_BMD, outputs_LBMD = self._advance(cache, memory, places)
        if config.associative_memory:
            writers_LBWD: Sequence[Tensor] = outputs_LBMD
            writes_BW = rows_B[:, None]
            if config.associative_writers == "all":
                index_P = torch.arange(config.num_positions, device=rows_B.device)
                read_BP = index_P < count + cache.position[:, None]
                writers_LBWD = cache.outputs.unbind(1)
                writes_BW = writes_BW & (read_BP | (index_P >= config.num_positions - count))
            written = encoder.written_associations(cache.associations, writers_LBWD, factor_B1, writes_BW)
            cache.associations = _rows(rows_B, written, cache.associations)
        cache.memory = _rows(rows_B, encoder.retained(out_BMD, cache.memory, factor_B1[..., None]), cache.memory)
        cache.segment = cache.segment + rows_B

    def _advance(self, cache: RmaatCache, x_BND: Tensor, places: CausalPositions) -> tuple[Tensor, list[Tensor]]:
        """Compute a piece of the current segment: return its last output, normalised, and those of all layers."""
        if not x_BND.shape[1]:
            # A model without memory tokens begins and ends a segment with no position.
            return x_BND, [x_BND] * len(cache.layers)
        encoder, outputs, layers = self.rmaat.encoder, [], []
        per_layer, associations_LBKE = iter(cache.shared[1:]), cache.associations.unbind(1)
        for layer, carried in enumerate(cache.layers):
            x_BND = encoder.recalled(layer, x_BND, associations_LBKE)
            x_BND, carried = encoder.causal_layer(layer, x_BND, places, next(per_layer, None), None, carried)
            outputs.append(x_BND)
            layers.append(carried)
        cache.layers = layers
        if cache.outputs.shape[2]:
            # Each position is computed once in a segment, so adding to the zeros of its beginning sets it.
            used_BLCD = torch.stack(outputs, 1).masked_fill(~places.mask[:, None, :, None], 0)
            index_BC = places.index.expand(len(x_BND), -1)
            cache.outputs = cache.outputs.scatter_add(2, index_BC[:, None, :, None].expand_as(used_BLCD), used_BLCD)
        return encoder.final_norm(x_BND), outputs


def _rows(rows_B: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return `new` in the given rows and `old` in the others."""
    return torch.where(rows_B.view(-1, *[1] * (new.dim() - 1)), new, old)


def _aligned(input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids that begin on the left in each row, (B, N), their numbers, and where they began, (B,).

    Args:
        input_ids: (B, N).
        attention_mask: (B, N) or wider, whose last N entries count: ones with zeros before or
            behind them. None means all ones.
    """
    width = input_ids.shape[1]
    if attention_mask is None:
        length_B = torch.full((len(input_ids),), width, device=input_ids.device)
        return input_ids, length_B, torch.zeros_like(length_B)
    if attention_mask.dim() != 2 or len(attention_mask) != len(input_ids) or attention_mask.shape[1] < width:
        raise UserError(
            f"attention_mask {tuple(attention_mask.shape)} must have a row of at least {width} entries for each of "
            f"the {len(input_ids)} inputs"
        )
    mask_BN = attention_mask[:, -width:].bool()
    length_B, left_B = mask_BN.sum(1), mask_BN.int().argmax(1)
    place_BN = (torch.arange(width, device=input_ids.device) + left_B[:, None]).clamp_max(width - 1)
    ends_B = (mask_BN.int() * torch.arange(1, width + 1, device=input_ids.device)).amax(1)
    if bool((ends_B - left_B != length_B).any()):
        row = int((ends_B - left_B != length_B).int().argmax())
        raise UserError(f"attention_mask must be ones with zeros before or behind them; row {row} is not")
    return input_ids.gather(1, place_BN), length_B, left_B
