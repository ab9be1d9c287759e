"""Linformer's attention: softmax attention to learned sums over positions (arXiv 2006.04768).

Axes: B batch, H heads, N positions, k projected positions, d features of a head.
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from rmaat.attention.base import AttentionMixer
from rmaat.attention.softmax import softmax_attention
from rmaat.settings import ModelSettings


def reference_linformer_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    projection: Tensor,
    mask: Tensor,
) -> Tensor:
    """Return softmax(Q (E K)^T / sqrt(d)) E V row by row, E being its columns at the row's tokens.

    Arguments and result are those of `linformer_attention`.
    """
    rows = []
    for q_HNd, k_HNd, v_HNd, mask_N in zip(q, k, v, mask, strict=True):
        projection_kn = projection[:, : len(mask_N)][:, mask_N]
        keys_Hkd = projection_kn @ k_HNd[:, mask_N]
        values_Hkd = projection_kn @ v_HNd[:, mask_N]
        rows.append((q_HNd @ keys_Hkd.mT / q.shape[-1] ** 0.5).softmax(-1) @ values_Hkd)
    return torch.stack(rows)


def linformer_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    projection: Tensor,
    mask: Tensor,
) -> Tensor:
    """Return softmax(Q (E K)^T / sqrt(d)) E V; a masked position adds nothing to the sums.

    Args:
        q, k, v: (B, H, N, d).
        projection: E, (k, at least N); its first N columns are used.
        mask: (B, N) bool, True where there is a token.

    Returns:
        (B, H, N, d), in the precision of autocast, in O(N k).
    """
    projection = projection[:, : k.shape[2]]
    projected = (projection @ x.masked_fill(~mask[:, None, :, None], 0) for x in (k, v))
    return softmax_attention(q, *projected)


class LinformerMixer(AttentionMixer):
    """Softmax attention to k learned sums over positions (arXiv 2006.04768).

    `projection` E (k, N) is shared by heads, keys and values: the paper's key-value sharing. N is
    memory plus segment length.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.projection = nn.Parameter(torch.empty(settings.linformer_size, settings.num_positions))

    def initialise(self) -> None:
        """Variance 1 / N keeps the size of independent keys [C]."""
        init.normal_(self.projection, std=self.projection.shape[-1] ** -0.5)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """Attend to the projected keys and values."""
        return linformer_attention(q, k, v, self.projection, mask_BN)
