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
        # Treat the sequence as an image of height 1: conv2d takes (B, D, 1, N) in this memory order
        # as it is, while conv1d would copy it first.
        image_BD1N = x_BND.masked_fill(~tokens_BN1, 0).mT.unsqueeze(2)
        width, size = self.taps.shape
        sums_BD1N = conv2d(image_BD1N, self.taps[:, None, None], padding=(0, size // 2), groups=width)
        return x_BND + sums_BD1N.squeeze(2).mT.masked_fill(~tokens_BN1, 0)
