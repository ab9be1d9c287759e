r"""What retention factors do to a memory token: how much of each segment's writing is left at the end.

The memory goes on as m_{t+1} = RF(t, T) LayerNorm(m_t + w_t), with w_t what segment t writes (the residual stream and
its normalisation, without the learned gain and bias). LayerNorm gives every segment's output the scale 1, so what RF
sets is the weight of the old memory against w_t. With w_t of scale 1, independent of the memory and of each other, the
old memory's part of the variance after segment t's LayerNorm is a_t = RF(t-1)^2 / (1 + RF(t-1)^2) [C: this estimate].
"""

import numpy as np

from rmaat.astrocyte.nonlinearity import Array


def memory_shares(factors: Array) -> Array:
    """The share of each segment's writing in the variance of the last segment's memory, shape (T,), sums to 1.

    `factors` are RF(1 ... T), shape (T,). Segment 1 reads a memory of scale 1 (the learned one), which counts as its
    writing; RF(T) scales the whole memory and changes no share.
    """
    squared = factors[:-1] ** 2
    kept = squared / (1.0 + squared)
    written = np.concatenate([[1.0], 1.0 - kept])
    survival = np.concatenate([np.cumprod(kept[::-1])[::-1], [1.0]])
    return written * survival
