"""Checks of what a caller gives a model, each with the remedy in its message.

Axes: B batch, N tokens of a sequence, M memory tokens, D width.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rmaat.errors import UserError

ID_TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def one_input(input_ids: Tensor | None, input_values: Tensor | None, input_type: str) -> Tensor:
    """The input that the model's input_type asks for, of its type and of shape (B, N).

    Raises:
        UserError: where the other one, both or none were given, or where shape or type do not fit.
    """
    given = {"tokens": ("input_ids", input_ids), "values": ("input_values", input_values)}
    name, wanted = given.pop(input_type)
    other_name, other = given.popitem()[1]
    if wanted is None or other is not None:
        raise UserError(f"a model of input_type '{input_type}' takes {name} and no {other_name}")
    fits = wanted.is_floating_point() if input_type == "values" else wanted.dtype in ID_TYPES
    if wanted.dim() != 2 or not fits:
        kind = "numbers of a floating-point type" if input_type == "values" else "integers of a signed type or uint8"
        raise UserError(f"{name} must be (batch, tokens) {kind}, not {tuple(wanted.shape)} {wanted.dtype}")
    return wanted


def row_lengths(tokens: Tensor, attention_mask: Tensor | None, vocab_size: int) -> NDArray[np.int64]:
    """The number of tokens of each row, int64 (B,), after checking the mask's form and the range of what it leaves.

    Args:
        tokens: (B, N) integer ids, or floating-point values.
        attention_mask: (B, N), ones then zeros in each row, or None for all ones.
        vocab_size: ids must be in 0 .. vocab_size - 1 where the mask is one; values must be finite there.

    Raises:
        UserError: naming what does not fit.
    """
    batch, width = tokens.shape
    if attention_mask is not None and attention_mask.shape != tokens.shape:
        raise UserError(
            f"attention_mask {tuple(attention_mask.shape)} must have the shape of the input {tuple(tokens.shape)}"
        )
    if batch == 0 or width == 0:
        return np.zeros(batch, np.int64)
    length_B = torch.full((batch,), width, device=tokens.device)
    rising_B = torch.zeros_like(length_B)
    used = tokens
    # A long sequence without a mask is spared its checks, which need several bytes a token.
    if attention_mask is not None:
        mask = attention_mask.bool()
        length_B, rising_B = mask.sum(1), (mask[:, 1:] > mask[:, :-1]).any(1).long()
        used = tokens.where(mask, 0)
    if used.is_floating_point():
        lowest_B = highest_B = used.isfinite().all(1).long() - 1
    else:
        lowest_B, highest_B = used.amin(1).long(), used.amax(1).long()
    # One transfer for all checks: on a GPU each would be a synchronisation.
    lengths, broken, lowest, highest = torch.stack([length_B, rising_B, lowest_B, highest_B]).tolist()
    if any(broken):
        raise UserError(
            f"attention_mask must be ones then zeros in each row; row {broken.index(1)} is not (pad on the right)"
        )
    if tokens.is_floating_point():
        if min(lowest) < 0:
            raise UserError(f"input_values must be finite; row {lowest.index(-1)} holds a NaN or an infinity")
    elif min(lowest, default=0) < 0 or max(highest, default=0) >= vocab_size:
        bad = min(lowest) if min(lowest) < 0 else max(highest)
        raise UserError(f"input_ids holds the id {bad}; vocab_size {vocab_size} allows 0 to {vocab_size - 1}")
    return np.asarray(lengths, np.int64)


def whole_patches(lengths: NDArray[np.int64], patch_size: int) -> NDArray[np.int64]:
    """The patches of each row of so many values; raises `UserError` for a row that ends within one."""
    for row in np.flatnonzero(lengths % patch_size)[:1]:
        raise UserError(
            f"row {row} has {lengths[row]} values, which are not whole patches of patch_size {patch_size}; pad "
            "the row with values of your own, or choose a divisor"
        )
    return lengths // patch_size


class Place(NamedTuple):
    """Where each row's segments stand in their whole sequence; int64 arrays, (B,).

    Attributes:
        segments: segments given in this call.
        offset: segments before this call.
        total: T, segments of the whole sequence.
    """

    segments: NDArray[np.int64]
    offset: NDArray[np.int64]
    total: NDArray[np.int64]

    @property
    def longest(self) -> int:
        """The most segments that a row has in this call."""
        return int(self.segments.max(initial=0))


def place_segments(
    lengths: NDArray[np.int64],
    segment_span: int,
    segment_offset: int | Tensor,
    total_segments: int | Tensor | None,
    has_memory: bool,
) -> Place:
    """Number the segments of each row of so many tokens or values; the rules are those of the model's forward.

    Raises:
        UserError: for an empty row or an offset above 0 without memory, an offset below 0, a total that is less than
            offset plus the row's own segments, or a row that goes on after this call without ending on a whole segment.
    """
    segments = -(-lengths // segment_span)
    offset = _per_row("segment_offset", segment_offset, len(lengths))
    ends = offset + segments
    total = ends if total_segments is None else _per_row("total_segments", total_segments, len(lengths))
    if not has_memory:
        for row in np.flatnonzero(lengths == 0)[:1]:
            raise UserError(f"row {row} has no token; drop it, or give memory to carry through")
        for row in np.flatnonzero(offset > 0)[:1]:
            raise UserError(
                f"segment_offset {offset[row]} (row {row}) continues a sequence: give the memory of the call before it"
            )
    for row in np.flatnonzero(offset < 0)[:1]:
        raise UserError(f"segment_offset must be >= 0, not {offset[row]} (row {row})")
    for row in np.flatnonzero((lengths > 0) & (total < ends))[:1]:
        raise UserError(
            f"total_segments {total[row]} is less than segment_offset {offset[row]} plus the row's own {segments[row]} "
            f"segments (row {row})"
        )
    for row in np.flatnonzero((lengths % segment_span > 0) & (total > ends))[:1]:
        raise UserError(
            f"row {row} goes on after this call (total_segments {total[row]}), so its length {lengths[row]} must be whole "
            f"segments of {segment_span}"
        )
    return Place(segments, offset, total)


def _per_row(name: str, value: int | Tensor, batch: int) -> NDArray[np.int64]:
    found = np.asarray(value.tolist() if isinstance(value, Tensor) else value, np.int64)
    if found.shape not in ((), (batch,)):
        raise UserError(f"{name} must be one number or one a row ({batch}), not of shape {found.shape}")
    return np.broadcast_to(found, (batch,))


def check_state(name: str, value: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raise `UserError` unless `value` is None or of that shape."""
    if value is not None and value.shape != shape:
        raise UserError(f"{name} must be {shape}, not {tuple(value.shape)}")


def check_readout(readout: Tensor | None, memory: Tensor | None, shape: tuple[int, ...], adds_up: bool) -> None:
    """Raise `UserError` unless a readout has that shape, and comes with memory if it adds up over segments."""
    if adds_up and memory is not None and readout is None:
        raise UserError(
            "readout 'running_mean' adds up over all segments: give the readout of the call that the memory came from"
        )
    check_state("readout", readout, shape)


def check_associations(
    associations: Tensor | None, memory: Tensor | None, shape: tuple[int, ...], expected: bool
) -> None:
    """Raise `UserError` unless associations of that shape come with memory, to a model that has them, or neither is given."""
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


def check_labels(labels: Tensor, batch: int, num_labels: int) -> None:
    """Raise `UserError` unless labels are (B,) integers in 0 .. num_labels - 1."""
    if labels.shape != (batch,) or labels.is_floating_point():
        raise UserError(f"labels must be ({batch},) integers, not {tuple(labels.shape)} {labels.dtype}")
    lowest, highest = torch.stack([labels.amin(), labels.amax()]).tolist()
    if lowest < 0 or highest >= num_labels:
        bad = lowest if lowest < 0 else highest
        raise UserError(f"labels holds {bad}; num_labels {num_labels} allows 0 to {num_labels - 1}")


def check_pair(two_towers: bool, other: Tensor | None, continues: bool) -> None:
    """Raise `UserError` unless a second input is given exactly to a model of two towers, both from their beginning."""
    if two_towers != (other is not None):
        wants = "takes pairs: give other_input_ids" if two_towers else "takes one input; set two_towers for pairs"
        raise UserError(f"a model with two_towers: {str(two_towers).lower()} {wants}")
    if two_towers and continues:
        raise UserError(
            "memory, readout, associations, segment_offset and total_segments cannot be given to a model of two towers: each input "
            "begins with the first memory and is whole"
        )


def check_segment_logits(two_towers: bool, pooled_norm: bool) -> None:
    """Raise `UserError` for a head that cannot be asked after each segment."""
    for name, given in (("two_towers", two_towers), ("pooled_norm", pooled_norm)):
        if given:
            raise UserError(
                f"output_segment_logits needs a model with {name}: false, whose head looks at one state at a time"
            )
