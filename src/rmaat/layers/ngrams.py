"""A linear classifier of token n-grams, the wide part beside the deep one.

Axes: B batch, N tokens, T segments, S tokens of a segment, C classes.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, pad
from transformers import initialization as init

from rmaat.attention.precision import at_least_float32

GAIN = 10.0
"""Factor of the logits, so that the table learns at ten times the learning rate of the other layers.

A row of the table is seldom read, and the optimiser moves it by about the learning rate each time.
"""

MULTIPLIER = 0x45D9F3B
"""An odd factor of the hash; its product with 32 bits fits into int64."""

BITS = 0xFFFFFFFF
"""The 32 bits of a hash."""


class NgramClassifier(nn.Module):
    """The logits of hashed n-grams, z_C = GAIN / sqrt(n) sum_g w_h(g) [C].

    The sum is over the different n-grams g of 1 to `size` tokens of each segment, in a sequence of n
    tokens; h(g) is a row of the table w (buckets, C), which begins at 0. An n-gram does not cross the
    border of a segment, and counts once in it, because a frequent one says little more than a rare
    one: counts of long texts mislead a linear model, and their logarithms do not.

    Deep models of some thousand short documents memorise rare words. A linear model on single words
    and pairs does not, and is the better one there (wide and deep: arXiv 1606.07792; hashing: arXiv
    1607.01759).
    """

    def __init__(self, size: int, buckets: int, classes: int) -> None:
        super().__init__()
        self.size = size
        self.table = nn.Parameter(torch.empty(buckets, classes))

    def initialise(self) -> None:
        """Set the table to 0: a new model is its deep part."""
        init.zeros_(self.table)

    def sums(self, ids_BN: Tensor, mask_BN: Tensor | None, segment: int) -> Tensor:
        """Return the sums of rows and the numbers of tokens up to the end of each segment, (B, T, C + 1).

        Args:
            ids_BN: token ids, integer.
            mask_BN: 1 at tokens, 0 at padding behind them; None means no padding.
            segment: S.
        """
        batch, length = ids_BN.shape
        # Each row is a segment, so that no n-gram crosses a border; n-grams that do not exist weigh 0.
        mask_BN = torch.ones_like(ids_BN, dtype=torch.bool) if mask_BN is None else mask_BN.bool()
        missing = -length % segment
        present_RS = pad(mask_BN, (0, missing)).reshape(-1, segment)
        ids_RS = pad(ids_BN.long(), (0, missing)).reshape(-1, segment)
        rows, exists = ngram_rows(ids_RS, self.size, len(self.table))
        # Sorted, a row is the first of its kind if the one before it is another; those that do not
        # exist come last.
        rows = rows.masked_fill(~(exists & present_RS.repeat(1, self.size)), len(self.table)).sort(1).values
        first = (rows != pad(rows[:, :-1], (1, 0), value=-1)) & (rows < len(self.table))
        sums_RC = embedding_bag(rows * first, self.table, mode="sum", per_sample_weights=first.to(self.table.dtype))
        # Counts of tokens need more digits than bfloat16 has.
        sums_BTC = at_least_float32(sums_RC).unflatten(0, (batch, -1))
        count_BT1 = present_RS.sum(1).to(sums_BTC.dtype).reshape(batch, -1, 1)
        return torch.cat([sums_BTC, count_BT1], -1).cumsum(1)

    def logits(self, sums: Tensor) -> Tensor:
        """Return the logits (..., C) of sums and numbers (..., C + 1)."""
        return (GAIN * sums[..., :-1] / sums[..., -1:].clamp_min(1).sqrt()).to(self.table.dtype)


def ngram_rows(ids_RS: Tensor, size: int, buckets: int) -> tuple[Tensor, Tensor]:
    """Return the row of the n-gram that ends at each token, for n = 1 .. size.

    h_1(i) = mix(x_i + 1) and h_n(i) = mix(h_(n-1)(i - 1) + x_i + 1) in 32 bits, and the row is the
    remainder of h modulo `buckets`.

    Args:
        ids_RS: ids of separate stretches of S tokens, int64.
        size: tokens of the longest n-gram.
        buckets: number of rows.

    Returns:
        Rows (R, size * S), one n after another, and the mask (R, size * S) of those whose tokens all
        lie in the stretch.
    """
    hashes, exist = [_mixed(ids_RS + 1)], [torch.ones_like(ids_RS, dtype=torch.bool)]
    for _ in range(size - 1):
        hashes.append(_mixed(pad(hashes[-1][:, :-1], (1, 0)) + ids_RS + 1))
        exist.append(pad(exist[-1][:, :-1], (1, 0)))
    return torch.cat(hashes, 1) % buckets, torch.cat(exist, 1)


def _mixed(x: Tensor) -> Tensor:
    """Return 32 bits, each of which depends on all lower and higher bits of x."""
    for _ in range(2):
        x = x & BITS
        x = (x ^ (x >> 16)) * MULTIPLIER
    x = x & BITS
    return x ^ (x >> 16)
