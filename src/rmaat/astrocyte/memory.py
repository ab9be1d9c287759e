r"""Share of each segment in the last memory, estimated from the retention factors.

The memory after segment t is m_{t+1} = RF(t, T) LayerNorm(m_t + w_t) [P]. Here w_t is what segment
t adds to the residual stream, and LayerNorm has no learned gain and bias. LayerNorm gives every
segment's output the scale 1, so RF sets only the weight of the old memory against w_t.

The estimate [C] assumes that each w_t has scale 1 and is independent of the memory and of the other
w_t. Then the old memory has the share a_t = RF(t-1)^2 / (1 + RF(t-1)^2) of the variance after
segment t's LayerNorm. All quantities have no unit.
"""

import numpy as np

from rmaat.astrocyte.nonlinearity import Array


def memory_shares(factors: Array) -> Array:
    """Return the share of each segment's w_t in the variance of the last memory [C].

    Segment 1 reads the learned memory, which has scale 1 and counts as part of w_1. RF(T) scales
    the whole memory and changes no share.

    Args:
        factors: RF(1) ... RF(T), shape (T,), no unit.

    Returns:
        The shares, shape (T,), which sum to 1.
    """
    squared = factors[:-1] ** 2
    # a_2 ... a_T
    old_memory = squared / (1.0 + squared)
    new = np.concatenate([[1.0], 1.0 - old_memory])
    # The share of segment t is multiplied by a_{t+1} ... a_T in the later segments.
    survival = np.concatenate([np.cumprod(old_memory[::-1])[::-1], [1.0]])
    return new * survival
