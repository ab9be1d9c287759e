"""FAVOR+: softmax attention by positive random features (arXiv 2009.14794).

Axes: B batch, H heads, N positions, m features of queries and keys, F random features, d features
of values.
"""

import math

import torch
from torch import Tensor
from transformers import initialization as init

from rmaat.attention.base import AttentionMixer
from rmaat.attention.linear import kernel_attention
from rmaat.attention.precision import at_least_float32, no_autocast
from rmaat.settings import ModelSettings


def reference_performer_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    directions: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the mean of the values with the estimated weights of softmax attention, in O(N^2).

    The mean over directions w of phi_w(q) phi_w(k), with phi_w(x) = exp(w . x - |x|^2 / 2), is
    exp(q . k) for standard normal w (arXiv 2009.14794, lemma 1); q and k are divided by m^(1/4).
    Arguments and result are those of `performer_attention`, but for its `FLOOR`.
    """

    def features(x: Tensor) -> Tensor:
        x = x / x.shape[-1] ** 0.25
        return (x @ directions.mT - x.square().sum(-1, keepdim=True) / 2).exp()

    weight_BHNN = features(q) @ features(k).mT
    if mask is not None:
        weight_BHNN = weight_BHNN * mask[:, None, None, :]
    return weight_BHNN / weight_BHNN.sum(-1, keepdim=True) @ v


FLOOR = 1e-6
"""Added to features, whose largest is 1: no normaliser vanishes [C: the original adds 1e-4]."""


def orthogonal_directions(count: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw Gaussian directions, orthogonal within each block of `width`: (count, width), float32.

    Each has the length of an independent standard normal vector, so that it is marginally standard
    normal.
    """
    blocks = -(-count // width)
    orthogonal, triangular = torch.linalg.qr(torch.randn(blocks, width, width, generator=generator))
    # Without the signs the directions of a block would not be uniform over rotations.
    signs = triangular.diagonal(dim1=-2, dim2=-1).sign()
    directions = (orthogonal * signs[:, None]).mT.flatten(0, 1)[:count]
    lengths = torch.randn(count, width, generator=generator).norm(dim=1, keepdim=True)
    return directions * lengths


def _positive_features(x: Tensor, directions: Tensor, dims: tuple[int, ...], absent: Tensor | None = None) -> Tensor:
    """Return exp(w . x - |x|^2 / 2) over its largest value along `dims`; the factor cancels."""
    exponent = x @ directions.mT - x.square().sum(-1, keepdim=True) / 2
    if absent is not None:
        exponent = exponent.masked_fill(absent, torch.finfo(x.dtype).min)
    return torch.exp(exponent - exponent.detach().amax(dims, keepdim=True)) + FLOOR


def performer_attention(q: Tensor, k: Tensor, v: Tensor, directions: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend with an unbiased estimate of softmax attention's kernel exp(q . k / sqrt(m)).

    Args:
        q, k: (B, H, N, m).
        v: (B, H, N, d).
        directions: (F, m), standard normal, such as `orthogonal_directions` draws.
        mask: (B, N) bool, True where there is a token; other positions add nothing.

    Returns:
        (B, H, N, d), the dtype of v, computed in at least float32 under any autocast. For F to
        infinity it is softmax attention.
    """
    with no_autocast(v):
        scale = q.shape[-1] ** -0.25
        rows = at_least_float32(directions).to(torch.promote_types(q.dtype, torch.float32))
        absent = None if mask is None else ~mask[:, None, :, None]
        phi_q = _positive_features(at_least_float32(q) * scale, rows, (-1,))
        phi_k = _positive_features(at_least_float32(k) * scale, rows, (-1, -2), absent)
        return kernel_attention(phi_q, phi_k, v, mask)


class PerformerMixer(AttentionMixer):
    """Softmax attention by positive orthogonal random features, FAVOR+ (arXiv 2009.14794).

    `directions` (F, m) are shared by the heads of a layer. They are drawn once and stored with the
    weights [C: the original may draw anew during training; a replayed segment must meet the same
    ones].
    """

    directions: Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        head_width = settings.hidden_size // settings.num_attention_heads
        features = settings.num_random_features or max(1, int(head_width * math.log(head_width)))
        self.register_buffer("directions", torch.empty(features, head_width))

    def initialise(self) -> None:
        """Draw the directions, by PyTorch's default generator."""
        init.copy_(self.directions, orthogonal_directions(*self.directions.shape))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """Kernel attention on the random features."""
        return performer_attention(q, k, v, self.directions, mask_BN)
