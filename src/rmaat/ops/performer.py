"""FAVOR+: softmax attention by positive random features (arXiv 2009.14794).

Axes: B batch, H heads, N positions, m features of queries and keys, F random features, d features of values.
"""

import torch
from torch import Tensor

from rmaat.ops.linear import kernel_attention
from rmaat.ops.precision import at_least_float32, no_autocast

FLOOR = 1e-6
"""Added to features, whose largest is 1, so that no normaliser vanishes [C: the original adds 1e-4]."""


def orthogonal_directions(count: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Gaussian directions, orthogonal within each block of `width`: (count, width), float32.

    Each has the length of an independent standard normal vector, so that it is marginally standard normal.
    """
    blocks = -(-count // width)
    orthogonal, triangular = torch.linalg.qr(torch.randn(blocks, width, width, generator=generator))
    # Without the signs the directions of a block would not be uniform over rotations.
    signs = triangular.diagonal(dim1=-2, dim2=-1).sign()
    directions = (orthogonal * signs[:, None]).mT.flatten(0, 1)[:count]
    lengths = torch.randn(count, width, generator=generator).norm(dim=1, keepdim=True)
    return directions * lengths


def _positive_features(x: Tensor, directions: Tensor, dims: tuple[int, ...], absent: Tensor | None = None) -> Tensor:
    """exp(w . x - |x|^2 / 2), over its largest value along `dims`; the factor cancels in the attention."""
    exponent = x @ directions.mT - x.square().sum(-1, keepdim=True) / 2
    if absent is not None:
        exponent = exponent.masked_fill(absent, torch.finfo(x.dtype).min)
    return torch.exp(exponent - exponent.detach().amax(dims, keepdim=True)) + FLOOR


def performer_attention(q: Tensor, k: Tensor, v: Tensor, directions: Tensor, mask: Tensor | None = None) -> Tensor:
    """An unbiased estimate of the kernel exp(q . k / sqrt(m)) in place of softmax attention's.

    Args:
        q, k: (B, H, N, m).
        v: (B, H, N, d).
        directions: (F, m), standard normal, such as `orthogonal_directions` draws.
        mask: (B, N) bool, True where there is a token; other positions add nothing.

    Returns:
        (B, H, N, d), the dtype of v, computed in at least float32 under any autocast. For F to infinity it is softmax attention.
    """
    with no_autocast(v):
        scale = q.shape[-1] ** -0.25
        rows = at_least_float32(directions).to(torch.promote_types(q.dtype, torch.float32))
        absent = None if mask is None else ~mask[:, None, :, None]
        phi_q = _positive_features(at_least_float32(q) * scale, rows, (-1,))
        phi_k = _positive_features(at_least_float32(k) * scale, rows, (-1, -2), absent)
        return kernel_attention(phi_q, phi_k, v, mask)
