"""Nyström attention as a mixer. Axes: B batch, H heads, N positions, d features of a head."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from transformers import initialization as init

from rmaat.layers.mixers.base import AttentionMixer
from rmaat.ops import nystrom_attention
from rmaat.settings import ModelSettings


class NystromMixer(AttentionMixer):
    """Nyström attention with a depthwise convolution of the values beside it (arXiv 2102.03902).

    `convolution` (H, kernel) is one kernel a head, over positions. Projections have no biases, as in all mixers here [C].
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.num_landmarks = settings.num_landmarks
        self.convolution = nn.Parameter(torch.empty(self.num_heads, settings.conv_kernel_size))

    def initialise(self) -> None:
        """Uniform within 1 / sqrt(kernel), PyTorch's own start of a convolution."""
        bound = self.convolution.shape[-1] ** -0.5
        init.uniform_(self.convolution, -bound, bound)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """The approximated softmax attention plus the convolution of the values at tokens."""
        present_BHNd = v.masked_fill(~mask_BN[:, None, :, None], 0)
        kernel_H1K1 = self.convolution[:, None, :, None]
        near_BHNd = conv2d(present_BHNd, kernel_H1K1, padding=(kernel_H1K1.shape[2] // 2, 0), groups=self.num_heads)
        return nystrom_attention(q, k, v, self.num_landmarks, mask_BN) + near_BHNd
