"""The retention factors of a batch, whose rows have different offsets and numbers of segments.

Axes: B batch, T segments of this call, K segments that a learned schedule has logits for, M memory
tokens.
"""

import numpy as np
import torch
from torch import Tensor

from rmaat.astrocyte import NEED_TOTAL, retention_factors
from rmaat.errors import UserError
from rmaat.models.checks import SegmentRange
from rmaat.models.configuration import RmaatConfig


def batch_factors(config: RmaatConfig, logits_K: Tensor | None, segment_range: SegmentRange) -> Tensor:
    """Return the retention factor RF of each row's segments.

    `rmaat.astrocyte.retention_factors` computes the factors of one sequence. This function picks
    those of each row by its offset and total.

    Args:
        config: the model's config.
        logits_K: the logits of the schedule 'learned'; None with the others.
        segment_range: the range of each row's segments.

    Returns:
        (T, B, 1), or (T, B, M) if the memory tokens have different factors, in float64 on the CPU,
        those of 'learned' in the dtype and on the device of the logits. Entries after a row's last
        segment have no effect.
    """
    if config.schedule == "rotating":
        # Segment t writes memory token t mod M. t counts from the beginning of the whole
        # sequence, so that a streamed sequence continues with the right token.
        segment_TB1 = np.arange(segment_range.longest)[:, None, None] + segment_range.offset[:, None]
        written_TBM = segment_TB1 % config.num_memory_tokens == np.arange(config.num_memory_tokens)
        return torch.from_numpy(written_TBM)
    relative = config.retention_form == "relative"
    if logits_K is not None:
        return learned_factors(logits_K, segment_range, relative)[..., None]
    factors_TB = np.ones((segment_range.longest, len(segment_range.total)))
    # One pass per distinct T rather than per row, because many rows have the same T.
    for total in np.unique(segment_range.total[segment_range.segments > 0]):
        # If T does not change the factors, round their number up to a power of two: a long
        # stream then needs few arrays, which are cached.
        count = int(total) if config.schedule in NEED_TOTAL else 1 << (int(total) - 1).bit_length()
        factors = retention_factors(count, config.schedule, config.astrocyte, config.retention_constant)
        if relative:
            # Divide in float64: the factors of many segments underflow in float32.
            factors = factors / factors[:total].max()
        rows = np.flatnonzero((segment_range.total == total) & (segment_range.segments > 0))
        index_TB = np.arange(segment_range.longest)[:, None] + segment_range.offset[rows]
        factors_TB[:, rows] = factors[np.minimum(index_TB, total - 1)]
    return torch.from_numpy(factors_TB)[..., None]


def learned_factors(logits_K: Tensor, segment_range: SegmentRange, relative: bool = False) -> Tensor:
    """Return the factors of the schedule 'learned': a softmax over each row's first T logits [C].

    Args:
        logits_K: (num_segments,), one logit for each segment index.
        segment_range: the range of each row's segments.
        relative: divide each row's factors by their largest.

    Returns:
        (T, B), with gradients to the logits. The factors of a whole sequence sum to 1, unless
        `relative` is set.

    Raises:
        UserError: for a row with more segments than there are logits.
    """
    longest = int(segment_range.total.max(initial=0))
    if longest > len(logits_K):
        raise UserError(
            f"a sequence has {longest} segments, but retention_schedule 'learned' has factors for "
            f"num_segments {len(logits_K)} only; raise num_segments with max_seq_len, or take "
            "'ltp' or 'streaming'"
        )
    index = torch.arange(len(logits_K), device=logits_K.device)
    total_B = torch.from_numpy(segment_range.total.copy()).to(logits_K.device).clamp_min(1)
    # Logits at or after a row's T become -inf, so that they have no share in the row's softmax.
    factors_KB = logits_K[:, None].where(index[:, None] < total_B, -torch.inf).softmax(0)
    if relative:
        factors_KB = factors_KB / factors_KB.amax(0)
    offset_B = torch.from_numpy(segment_range.offset.copy()).to(logits_K.device)
    segment_TB = index[: segment_range.longest, None] + offset_B
    return factors_KB.gather(0, segment_TB.clamp_max(len(logits_K) - 1))
