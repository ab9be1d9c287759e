"""Checks of what a caller gives a model, each with the remedy in its message.

Axes: B batch, N tokens of a sequence, M memory tokens, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rmaat.errors import UserError


def row_lengths(input_ids: Tensor, attention_mask: Tensor | None, vocab_size: int) -> tuple[int, ...]:
    """The number of tokens of each row, after checking shapes, the mask's form and the range of ids.

    Args:
        input_ids: (B, N) integers.
        attention_mask: (B, N), ones then zeros in each row, or None for all ones.
        vocab_size: ids must be in 0 .. vocab_size - 1 where the mask is one.

    Raises:
        UserError: naming what does not fit.
    """
    if input_ids.dim() != 2 or input_ids.is_floating_point():
        kind = f"{tuple(input_ids.shape)} {input_ids.dtype}"
        raise UserError(f"input_ids must be (batch, tokens) integers, not {kind}")
    batch, tokens = input_ids.shape
    if attention_mask is None:
        mask = torch.ones_like(input_ids, dtype=torch.bool)
    elif attention_mask.shape != input_ids.shape:
        raise UserError(
            f"attention_mask {tuple(attention_mask.shape)} must have the shape of input_ids {tuple(input_ids.shape)}"
        )
    else:
        mask = attention_mask.bool()
    if tokens == 0:
        return (0,) * batch
    rising = (mask[:, 1:] & ~mask[:, :-1]).any(1)
    ids = input_ids.where(mask, 0)
    # One transfer for all checks: on a GPU each would be a synchronisation.
    facts = torch.stack([mask.sum(1), rising.long(), ids.amin(1), ids.amax(1)]).tolist()
    lengths, broken, lowest, highest = facts
    if any(broken):
        raise UserError(
            f"attention_mask must be ones then zeros in each row; row {broken.index(1)} is not (pad on the right)"
        )
    if min(lowest, default=0) < 0 or max(highest, default=0) >= vocab_size:
        bad = min(lowest) if min(lowest) < 0 else max(highest)
        raise UserError(f"input_ids holds the id {bad}; vocab_size {vocab_size} allows 0 to {vocab_size - 1}")
    return tuple(lengths)


class Place(NamedTuple):
    """Where each row's segments stand in their whole sequence; all of length B.

    Attributes:
        segments: segments given in this call.
        offset: segments before this call.
        total: T, segments of the whole sequence.
    """

    segments: tuple[int, ...]
    offset: tuple[int, ...]
    total: tuple[int, ...]


def place_segments(
    lengths: tuple[int, ...],
    segment_length: int,
    segment_offset: int | Tensor,
    total_segments: int | Tensor | None,
    has_memory: bool,
) -> Place:
    """Number the segments of each row; the rules are those of the model's forward.

    Raises:
        UserError: for an empty row without memory, an offset below 0, a total that is less than offset plus the row's own
            segments, or a row that goes on after this call without ending on a whole segment.
    """
    batch = len(lengths)
    segments = tuple(-(-length // segment_length) for length in lengths)
    offset = _per_row("segment_offset", segment_offset, batch)
    ends = tuple(o + s for o, s in zip(offset, segments, strict=True))
    total = ends if total_segments is None else _per_row("total_segments", total_segments, batch)
    for row, length in enumerate(lengths):
        if length == 0 and not has_memory:
            raise UserError(f"row {row} has no token; drop it, or give memory to carry through")
        if offset[row] < 0:
            raise UserError(f"segment_offset must be >= 0, not {offset[row]} (row {row})")
        if length and total[row] < ends[row]:
            raise UserError(
                f"total_segments {total[row]} is less than segment_offset {offset[row]} plus the row's own "
                f"{segments[row]} segments (row {row})"
            )
        if length % segment_length and total[row] > ends[row]:
            raise UserError(
                f"row {row} goes on after this call (total_segments {total[row]}), so its {length} tokens must be whole "
                f"segments of {segment_length}"
            )
    return Place(segments, offset, total)


def _per_row(name: str, value: int | Tensor, batch: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * batch
    if value.dim() == 0:
        return (int(value),) * batch
    if value.shape != (batch,):
        raise UserError(f"{name} must be one number or one a row ({batch}), not of shape {tuple(value.shape)}")
    return tuple(value.tolist())


def check_state(name: str, value: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raise `UserError` unless `value` is None or of that shape."""
    if value is not None and value.shape != shape:
        raise UserError(f"{name} must be {shape}, not {tuple(value.shape)}")


def check_labels(labels: Tensor, batch: int, num_labels: int) -> None:
    """Raise `UserError` unless labels are (B,) integers in 0 .. num_labels - 1."""
    if labels.shape != (batch,) or labels.is_floating_point():
        raise UserError(f"labels must be ({batch},) integers, not {tuple(labels.shape)} {labels.dtype}")
    lowest, highest = torch.stack([labels.amin(), labels.amax()]).tolist()
    if lowest < 0 or highest >= num_labels:
        bad = lowest if lowest < 0 else highest
        raise UserError(f"labels holds {bad}; num_labels {num_labels} allows 0 to {num_labels - 1}")
