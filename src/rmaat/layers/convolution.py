"""A short convolution over neighbouring tokens. Axes: B batch, N positions, D width, K taps."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from transformers import initialization as init


class ShortConvolution(nn.Module):
    """A convolution that adds to each token a weighted sum of its neighbours, feature by feature.

    The weights are `taps`, (D, K), K odd.

    Attention with positive features reads nearly the same sum at every position of a segment, so it
    hardly distinguishes which words are adjacent. The convolution does. Its result is added to the
    residual stream rather than to attention's input, because attention would mix it with that of all
    other positions.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.empty(width, size))

    def initialise(self) -> None:
        """Draw the taps as `nn.Conv1d` does, uniformly within 1 / sqrt(K)."""
        bound = self.taps.shape[1] ** -0.5
        init.uniform_(self.taps, -bound, bound)

    def forward(self, x_BND: Tensor, tokens_BN: Tensor) -> Tensor:
        """Return x_n + sum_j taps_j x_(n + j - K // 2), summed over tokens only, (B, N, D).

        Positions with `tokens_BN` False (memory, padding) stay unchanged and add nothing to others.
        Neither do the tokens of another segment.
        """
        tokens_BN1 = tokens_BN[..., None]
        sums_BND = self._sums(x_BND.masked_fill(~tokens_BN1, 0), self.taps.shape[1] // 2)
        return x_BND + sums_BND.masked_fill(~tokens_BN1, 0)

    def advance(self, x_BND: Tensor, mask_BN: Tensor, before_BKD: Tensor) -> tuple[Tensor, Tensor]:
        """Return x_n + sum_j taps_j x_(n + j - K + 1), (B, N, D), and the inputs that the next piece needs.

        Args:
            x_BND: a piece of a segment's tokens.
            mask_BN: bool, ones then zeros in each row, True at the tokens in use.
            before_BKD: the K - 1 inputs before the piece; zeros at the beginning of a segment.
        """
        inputs_BKD = torch.cat([before_BKD, x_BND.masked_fill(~mask_BN[..., None], 0)], 1)
        newest_BK = mask_BN.sum(1, keepdim=True) + torch.arange(before_BKD.shape[1], device=x_BND.device)
        newest_BKD = inputs_BKD.gather(1, newest_BK[..., None].expand_as(before_BKD))
        return x_BND + self._sums(inputs_BKD, 0).masked_fill(~mask_BN[..., None], 0), newest_BKD

    def _sums(self, x_BND: Tensor, padding: int) -> Tensor:
        # Treat the sequence as an image of height 1: conv2d takes (B, D, 1, N) in this memory order
        # as it is, while conv1d would copy it first.
        width = len(self.taps)
        return conv2d(x_BND.mT.unsqueeze(2), self.taps[:, None, None], padding=(0, padding), groups=width).squeeze(2).mT
