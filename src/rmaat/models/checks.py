"""Checks of a model's inputs. Each message names the remedy.

Axes: B batch, N tokens of a sequence, M memory tokens, D width.
"""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rmaat.errors import UserError
from rmaat.models.configuration import RmaatConfig
from rmaat.problems import IGNORED

ID_TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def select_input(
    input_ids: Tensor | None, input_values: Tensor | None, inputs_embeds: Tensor | None, config: RmaatConfig
) -> Tensor:
    """Return the input that belongs to the model's input_type, after checking it.

    Returns:
        (B, N) ids or values, or (B, N, D) embedded tokens.

    Raises:
        UserError: if that input is missing or another one is given, or for a wrong shape or dtype.
    """
    if inputs_embeds is not None:
        if input_ids is not None or input_values is not None or config.input_type != "tokens":
            raise UserError("inputs_embeds needs a model of input_type 'tokens', and no input_ids or input_values")
        shape, width = tuple(inputs_embeds.shape), config.hidden_size
        if len(shape) != 3 or shape[2] != width or not inputs_embeds.is_floating_point():
            raise UserError(f"inputs_embeds must be (batch, tokens, {width}), not {shape} {inputs_embeds.dtype}")
        return inputs_embeds
    inputs = {"tokens": ("input_ids", input_ids), "values": ("input_values", input_values)}
    name, selected = inputs.pop(config.input_type)
    other_name, other = inputs.popitem()[1]
    if selected is None or other is not None:
        raise UserError(f"a model of input_type '{config.input_type}' takes {name} and no {other_name}")
    values = config.input_type == "values"
    valid = selected.is_floating_point() if values else selected.dtype in ID_TYPES
    if selected.dim() != 2 or not valid:
        kind = "numbers of a floating-point type" if values else "integers of a signed type or uint8"
        raise UserError(f"{name} must be (batch, tokens) {kind}, not {tuple(selected.shape)} {selected.dtype}")
    return selected


def row_lengths(tokens: Tensor, attention_mask: Tensor | None, vocab_size: int) -> NDArray[np.int64]:
    """Return the number of tokens of each row, int64 (B,), after checking mask and tokens.

    Args:
        tokens: (B, N) integer ids or floating-point values, or (B, N, D) embedded tokens.
        attention_mask: (B, N), ones then zeros in each row, or None for all ones.
        vocab_size: the size of the vocabulary; not used for values.

    Raises:
        UserError: for a mask of another shape or form, for an id outside 0 .. vocab_size - 1, or
            for a value that is not finite. Positions under a zero of the mask are not checked.
            While `torch.export` traces, values are not checked, and a mask is refused.
    """
    if torch.compiler.is_exporting():
        # An exported graph has one length, and reads no value of a tensor on the way.
        if attention_mask is not None:
            raise UserError("an exported model has one length for all rows; leave out attention_mask")
        return np.full(tokens.shape[0], tokens.shape[1], np.int64)
    name = "input_values"
    if tokens.dim() == 3:
        # A sum is finite only if its terms are, and needs less memory than a mask of all of them.
        name, tokens = "inputs_embeds", tokens.detach().sum(-1, dtype=torch.float32)
    batch, width = tokens.shape
    if attention_mask is not None and attention_mask.shape != tokens.shape:
        raise UserError(
            f"attention_mask {tuple(attention_mask.shape)} must have the shape of the input {tuple(tokens.shape)}"
        )
    if batch == 0 or width == 0:
        return np.zeros(batch, np.int64)
    length_B = torch.full((batch,), width, device=tokens.device)
    rising_B = torch.zeros_like(length_B)
    unmasked = tokens
    # Skip the mask checks if no mask was given: they need several bytes per token.
    if attention_mask is not None:
        mask = attention_mask.bool()
        length_B, rising_B = mask.sum(1), (mask[:, 1:] > mask[:, :-1]).any(1).long()
        unmasked = tokens.where(mask, 0)
    if unmasked.is_floating_point():
        # For values, -1 marks a row that is not finite, as a negative id marks a wrong row of ids.
        lowest_B = highest_B = unmasked.isfinite().all(1).long() - 1
    else:
        lowest_B, highest_B = unmasked.amin(1).long(), unmasked.amax(1).long()
    # Read all results in one transfer, because on a GPU each transfer waits for the device.
    lengths, broken, lowest, highest = torch.stack([length_B, rising_B, lowest_B, highest_B]).tolist()
    if any(broken):
        raise UserError(
            f"attention_mask must be ones then zeros in each row; row {broken.index(1)} is not (pad on the right)"
        )
    if tokens.is_floating_point():
        if min(lowest) < 0:
            raise UserError(f"{name} must be finite; row {lowest.index(-1)} holds a NaN or an infinity")
    elif min(lowest, default=0) < 0 or max(highest, default=0) >= vocab_size:
        bad = min(lowest) if min(lowest) < 0 else max(highest)
        raise UserError(f"input_ids holds the id {bad}; vocab_size {vocab_size} allows 0 to {vocab_size - 1}")
    return np.asarray(lengths, np.int64)


def check_masked(masked: Tensor | None, tokens: Tensor, patch_size: int, masked_head: bool) -> None:
    """Raise `UserError` if masked positions do not fit the input (B, N, ...), or the model cannot use them."""
    if masked is None:
        return
    if not masked_head:
        raise UserError("masked needs a model with masked_head: true")
    if tokens.dim() == 3:
        raise UserError("masked needs input_ids, because the loss predicts them; leave out inputs_embeds")
    expected = (len(tokens), tokens.shape[1] // patch_size)
    if tuple(masked.shape) != expected:
        raise UserError(f"masked {tuple(masked.shape)} must be {expected}, one entry for each position of the input")


def check_next_labels(labels: Tensor | None, masked: Tensor | None, tokens: Tensor, config: RmaatConfig) -> None:
    """Raise `UserError` if labels of next tokens do not fit the input (B, N, ...), or the model has none."""
    if labels is None:
        return
    if not config.causal or config.input_type != "tokens" or masked is not None:
        raise UserError("labels of next tokens need a causal model of tokens, and exclude masked")
    check_token_labels(labels, tuple(tokens.shape[:2]), config.vocab_size, "vocab_size")


def warn_of_infinite_logits(logits_BC: Tensor) -> None:
    """Warn, naming the first row, if logits (B, C) are not finite."""
    for row in (~logits_BC.isfinite().all(-1)).nonzero().flatten().tolist()[:1]:
        warnings.warn(
            f"the logits of row {row} are not finite; its values are too large for the model, or the "
            "model's weights have diverged",
            # Past this function, forward, its decorator and two frames of nn.Module.
            stacklevel=6,
        )


def count_patches(lengths: NDArray[np.int64], patch_size: int) -> NDArray[np.int64]:
    """Return the number of patches of each row, int64 (B,).

    Args:
        lengths: (B,) int64, the number of values of each row.
        patch_size: the number of values of a patch.

    Raises:
        UserError: if a row ends within a patch.
    """
    # The loops over `[:1]` below and in `number_segments` report the first wrong row, if any.
    for row in np.flatnonzero(lengths % patch_size)[:1]:
        raise UserError(
            f"row {row} has {lengths[row]} values, which is no multiple of "
            f"patch_size {patch_size}; pad the row with values of your own, or choose a divisor"
        )
    return lengths // patch_size


class SegmentRange(NamedTuple):
    """The range of each row's segments within the row's whole sequence; int64 arrays, (B,).

    Attributes:
        segments: the number of segments in this call.
        offset: the number of segments before this call.
        total: T, the number of segments of the whole sequence.
    """

    segments: NDArray[np.int64]
    offset: NDArray[np.int64]
    total: NDArray[np.int64]

    @property
    def longest(self) -> int:
        """The number of segments of the longest row in this call."""
        return int(self.segments.max(initial=0))


def number_segments(
    lengths: NDArray[np.int64],
    tokens_per_segment: int,
    segment_offset: int | Tensor,
    total_segments: int | Tensor | None,
    has_memory: bool,
) -> SegmentRange:
    """Return the range of each row's segments, after checking arguments of `RmaatModel.forward`.

    Args:
        lengths: (B,) int64, the number of tokens or values of each row.
        tokens_per_segment: the number of tokens or values of one segment.
        segment_offset: as in `RmaatModel.forward`.
        total_segments: as in `RmaatModel.forward`.
        has_memory: whether the caller gave memory.

    Raises:
        UserError: for an offset below 0; for a total below the offset plus the row's segments; for
            a row that continues after this call but ends within a segment; and, without memory,
            for an empty row or an offset above 0.
    """
    segments = -(-lengths // tokens_per_segment)
    offset = _per_row("segment_offset", segment_offset, len(lengths))
    ends = offset + segments
    total = ends if total_segments is None else _per_row("total_segments", total_segments, len(lengths))
    if not has_memory:
        for row in np.flatnonzero(lengths == 0)[:1]:
            raise UserError(f"row {row} has no token; drop it, or give the memory to pass through it")
        for row in np.flatnonzero(offset > 0)[:1]:
            raise UserError(
                f"segment_offset {offset[row]} (row {row}) continues a sequence: give the memory of the previous call"
            )
    for row in np.flatnonzero(offset < 0)[:1]:
        raise UserError(f"segment_offset must be >= 0, not {offset[row]} (row {row})")
    for row in np.flatnonzero((lengths > 0) & (total < ends))[:1]:
        raise UserError(
            f"total_segments {total[row]} is less than segment_offset {offset[row]} plus "
            f"the {segments[row]} segments of this call (row {row})"
        )
    for row in np.flatnonzero((lengths % tokens_per_segment > 0) & (total > ends))[:1]:
        raise UserError(
            f"row {row} continues after this call (total_segments {total[row]}), so its length "
            f"{lengths[row]} must be a multiple of the segment's {tokens_per_segment} tokens"
        )
    return SegmentRange(segments, offset, total)


def _per_row(name: str, value: int | Tensor, batch: int) -> NDArray[np.int64]:
    numbers = np.asarray(value.tolist() if isinstance(value, Tensor) else value, np.int64)
    if numbers.shape not in ((), (batch,)):
        raise UserError(f"{name} must be one number, or one per row ({batch}), not of shape {numbers.shape}")
    return np.broadcast_to(numbers, (batch,))


def check_state(name: str, value: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raise `UserError` unless `value` is None or has the given shape."""
    if value is not None and value.shape != shape:
        raise UserError(f"{name} must be {shape}, not {tuple(value.shape)}")


def check_readout(readout: Tensor | None, memory: Tensor | None, shape: tuple[int, ...], adds_up: bool) -> None:
    """Raise `UserError` if a readout has another shape, or is missing beside memory.

    Memory needs a readout only if the readout adds up over segments (`adds_up`).
    """
    if adds_up and memory is not None and readout is None:
        raise UserError(
            "readout 'running_mean' adds up over all segments: give the readout of the call that returned the memory"
        )
    check_state("readout", readout, shape)


def check_associations(
    associations: Tensor | None, memory: Tensor | None, shape: tuple[int, ...], expected: bool
) -> None:
    """Raise `UserError` if associations have another shape, or come without a use.

    A model with an associative memory (`expected`) takes memory and associations together or
    neither. Another model takes none.
    """
    if associations is not None and not expected:
        raise UserError("associations need a model with associative_memory: true")
    if expected and (memory is None) != (associations is None):
        raise UserError("a model with associative_memory takes memory and associations together, from the same call")
    check_state("associations", associations, shape)


def check_backprop(backprop: object) -> None:
    """Raise `UserError` if an object assigned to a model's `backprop` is not a `Backprop`."""
    if isinstance(backprop, nn.Module):
        problem = "is an nn.Module, which would be stored as a part of the model"
    elif isinstance(backprop, type):
        problem = f"is a class; assign an object, such as {backprop.__name__}()"
    elif not callable(backprop):
        problem = "cannot be called with a Recurrence"
    elif not hasattr(backprop, "recomputes"):
        problem = (
            "has no attribute `recomputes`: set it to True if the backward pass computes segments again, else to False"
        )
    else:
        return
    raise UserError(f"backprop {backprop!r} {problem}; see rmaat.backprop.Backprop")


def check_ngrams(input_ids: Tensor | None, readout: Tensor | None, continues: bool, width: int) -> None:
    """Raise `UserError` if a model with n-grams gets no ids, or a continuation without their sums.

    Args:
        input_ids: the call's ids.
        readout: the readout of the call before.
        continues: whether the call continues a sequence.
        width: columns of a readout.
    """
    if input_ids is None:
        raise UserError("a model with ngram_size reads tokens: give input_ids")
    if continues and readout is None:
        raise UserError("n-grams add up over all segments: give the readout of the call that returned the memory")
    if readout is not None and readout.shape != (len(input_ids), width):
        raise UserError(f"readout must be {(len(input_ids), width)}, not {tuple(readout.shape)}")


def check_attentions(output_attentions: bool | None) -> None:
    """Raise `UserError` if a caller asks for attention matrices."""
    if output_attentions:
        raise UserError("output_attentions: the models have no attention matrices to return; leave it out")


def check_token_labels(labels: Tensor, shape: tuple[int, ...], num_labels: int, name: str = "num_labels") -> None:
    """Raise `UserError` unless labels (B, P) are integers in 0 .. num_labels - 1, or `IGNORED`.

    `name` is the setting that num_labels is the value of.
    """
    if labels.shape != shape or labels.is_floating_point():
        raise UserError(f"labels must be {shape} integers, one for each position, not {tuple(labels.shape)}")
    used = labels.where(labels != IGNORED, 0)
    lowest, highest = torch.stack([used.amin(), used.amax()]).tolist() if used.numel() else (0, 0)
    if lowest < 0 or highest >= num_labels:
        bad = lowest if lowest < 0 else highest
        raise UserError(f"labels holds {bad}; {name} {num_labels} allows 0 to {num_labels - 1}, and {IGNORED}")


def check_pair(two_towers: bool, other: Tensor | None, continues: bool) -> None:
    """Raise `UserError` if a second input and the setting two_towers do not match.

    Raise it too if the call continues a sequence in a model with two towers.
    """
    if two_towers != (other is not None):
        remedy = "takes pairs: give other_input_ids" if two_towers else "takes one input; set two_towers for pairs"
        raise UserError(f"a model with two_towers: {str(two_towers).lower()} {remedy}")
    if two_towers and continues:
        raise UserError(
            "a model with two_towers takes no memory, readout, associations, segment_offset or "
            "total_segments, because it reads both inputs from their beginning to their end"
        )


def check_segment_logits(two_towers: bool, pooled_norm: bool) -> None:
    """Raise `UserError` for a head that cannot classify after each segment."""
    for name, active in (("two_towers", two_towers), ("pooled_norm", pooled_norm)):
        if active:
            raise UserError(
                f"output_segment_logits needs a model with {name}: false, "
                "because its head must classify each state by itself"
            )
