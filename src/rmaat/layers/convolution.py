"""A short convolution over neighbouring tokens. Axes: B batch, N positions, D width, K taps."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from transformers import initialization as init


class ShortConvolution(nn.Module):
    """Adds to each token a weighted sum of its neighbours, feature by feature; `taps` is (D, K), K odd.

    Attention with positive features reads nearly the same sum at every position of a segment, so it hardly tells which
    words stand together. The taps do, and their sum is part of the residual stream: added to what attention is given
    alone, it would be mixed with that of all other positions.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.empty(width, size))

    def initialise(self) -> None:
        """Draw the taps as `nn.Conv1d` does, uniformly within 1 / sqrt(K)."""
        bound = self.taps.shape[1] ** -0.5
        init.uniform_(self.taps, -bound, bound)

    def forward(self, x_BND: Tensor, tokens_BN: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D): x_n + sum_j taps_j x_(n + j - K // 2) over tokens alone.

        Positions where `tokens_BN` is False (memory, padding) stay as they are and add nothing to others; nor do the
        tokens of another segment.
        """
        tokens_BN1 = tokens_BN[..., None]
        # A width of 1 beside N: a convolution of images takes (B, D, 1, N) in this memory order as it is, one of sequences
        # would copy it first.
        image_BD1N = x_BND.masked_fill(~tokens_BN1, 0).mT.unsqueeze(2)
        width, size = self.taps.shape
        near_BD1N = conv2d(image_BD1N, self.taps[:, None, None], padding=(0, size // 2), groups=width)
        return x_BND + near_BD1N.squeeze(2).mT.masked_fill(~tokens_BN1, 0)
