"""The positive features of queries and keys in linear attention.

Every function is elementwise, on tensors of any shape.
"""

from typing import Any

import torch
from torch import Tensor


def feature_map(x: Tensor) -> Tensor:
    """phi(x) = elu(x) + 1 [A]: e^x up to 0, x + 1 above; positive.

    Small features keep all their digits, where 1 added to elu(x) would leave 0 from x = -17 on in
    float32. With first derivatives; keeps the features and not `x` for them. While compiling,
    `reference_feature_map`: the compiler chooses what to keep.
    """
    return reference_feature_map(x) if torch.compiler.is_compiling() else _FeatureMap.apply(x)


def reference_feature_map(x: Tensor) -> Tensor:
    """phi(x) by plain operations with all derivatives."""
    # Clamped, since a gradient of 0 times the exponential of a large x would be NaN.
    return torch.where(x > 0, x + 1, x.clamp_max(0).exp())


def feature_map_(x: Tensor) -> Tensor:
    """phi(x) in place of `x`, floating point; without derivatives."""
    # x + 1 is the tangent of e^x at 0, and below it. One new tensor: a second would be seen in the
    # peak of a training step.
    exponential = x.exp().clamp_max_(1)
    return torch.maximum(x.add_(1), exponential, out=x)


def slope_(phi: Tensor) -> Tensor:
    """phi'(x) = min(phi(x), 1), in place of the features."""
    return phi.clamp_max_(1)


class _FeatureMap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        phi = feature_map_(x.clone())
        ctx.save_for_backward(phi)
        return phi

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (phi,) = ctx.saved_tensors
        return grads[0] * phi.clamp_max(1)
