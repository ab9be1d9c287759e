"""Astromorphic attention: linear attention with an astrocyte and presynaptic plasticity.

Sources: [P] is arXiv 2601.00426, [A] its predecessor arXiv 2312.10925, [C] a choice of this
project.

Axes: B batch, H heads, N positions (memory first), m features of queries and keys, d features of
values.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import elu

from rmaat.attention.features import feature_map_, reference_feature_map, slope_
from rmaat.attention.precision import at_least_float32, no_autocast


def reference_astromorphic_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    r: Tensor | None,
    alpha: float = 0.25,
    hebbian_scale: float | Tensor | None = None,
    mask: Tensor | None = None,
    *,
    presynaptic_plasticity: bool = True,
) -> Tensor:
    """Read the values with the N x N weights that the paper's products come to [P, A eq. 18].

        L_i = sum_j W_ij v_j        W_ij = phi(q_i) . (phi(k_j) + phi(r_j)) / (s C_i)
        C_i = phi(q_i) . g          g = (sum_t phi(k_t))^alpha          phi(x) = elu(x) + 1

    Arguments and result are those of `astromorphic_attention`, in O(N^2). A sigmoid on H has no
    such weights. Sums are over the tokens.
    """
    phi_q, phi_k = elu(q) + 1, elu(k) + 1
    if mask is not None:
        phi_k = phi_k * mask[:, None, :, None]
    neuron_BHNN = phi_q @ phi_k.mT
    astrocyte_BHNN = torch.zeros_like(neuron_BHNN) if r is None else phi_q @ (elu(r) + 1).mT
    scale = k.shape[-1] if hebbian_scale is None else hebbian_scale
    scale_B111 = torch.as_tensor(scale, dtype=q.dtype, device=q.device).reshape(-1, 1, 1, 1)
    weight_BHNN = (neuron_BHNN + astrocyte_BHNN) / scale_B111
    if mask is not None:
        weight_BHNN = weight_BHNN * mask[:, None, None, :]
    if presynaptic_plasticity:
        g_BHm = phi_k.sum(2) ** alpha
        weight_BHNN = weight_BHNN / (phi_q @ g_BHm[..., None])
    return weight_BHNN @ v


SMALLEST_NORMALISER = 1e-6
"""C is clamped from below here [C]: with every position masked it would be 0."""

MEAN_FEATURE = 1 / math.sqrt(2 * math.pi) + 0.5 + math.exp(0.5) * math.erfc(math.sqrt(0.5)) / 2
"""The expectation of phi(x) = elu(x) + 1 for standard normal x, about 1.16."""


def unit_read_scale(
    count_B: Tensor,
    head_width: int,
    alpha: float,
    *,
    hebbian_astro: bool,
    presynaptic_plasticity: bool,
    mean_feature: float = MEAN_FEATURE,
) -> Tensor:
    """Return the divisor s of H with which the weights of one reading sum to about 1 [C].

    The reading of a position is a sum of values with total weight phi(q) (S + S_R) / (s C), where S
    and S_R are the sums of phi(K) and phi(R) over the tokens. With every feature at its mean mu
    over n tokens, S = S_R = mu n, and C is phi(q) (mu n)^alpha. Hence s = a (mu n)^(1 - alpha),
    where a is 2 with H_astro and 1 without; and without the division by C, s = a m mu^2 n. The
    divisor m of [P] lets the weight grow as n^(1 - alpha).

    Args:
        count_B: (B,) tokens and memory positions that each sample writes from; or any other shape,
            with one count for each result.
        head_width: m.
        alpha: exponent of the calcium response.
        hebbian_astro: whether H_astro is part of H.
        presynaptic_plasticity: whether the reading is divided by C.
        mean_feature: mu.

    Returns:
        The shape and dtype of count_B.
    """
    # The constants are gathered into one, because each operation on a tensor is a kernel in every
    # layer and segment. A row without a position would divide by 0.
    factor = 2.0 if hebbian_astro else 1.0
    positions_B = count_B.clamp_min(1)
    if presynaptic_plasticity:
        return factor * mean_feature ** (1 - alpha) * positions_B.pow(1 - alpha)
    return factor * head_width * mean_feature**2 * positions_B


def astromorphic_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    r: Tensor | None,
    alpha: float = 0.25,
    hebbian_scale: float | Tensor | None = None,
    mask: Tensor | None = None,
    *,
    hebbian_sigmoid: bool = False,
    presynaptic_plasticity: bool = True,
) -> Tensor:
    """Write Hebbian weights of keys and astrocyte, and read them over the calcium response [P].

        write:  H = (phi(K) + phi(R))^T V / s        g = (sum_t phi(k_t))^alpha
        read:   L = [phi(Q) H] / C, row by row,      C = phi(Q) g^T

    The row-wise form is equation 18 of [A]. No residual is added.

    Args:
        q, k: (B, H, N, m), before phi.
        v: (B, H, N, d).
        r: (H, N, m), relative positions before phi, or None for H_astro = 0.
        alpha: exponent of the calcium response [A tested 0.15 to 0.4]; 1 makes g the plain sum of
            keys.
        hebbian_scale: s, one number or (B,); None means m [P].
        mask: (B, N) bool, True where there is a token. A masked position adds nothing to H or g;
            its own row is computed.
        hebbian_sigmoid: read sigmoid(H) in place of H [A; P has none].
        presynaptic_plasticity: divide by C; without it the reading is phi(Q) H.

    Returns:
        (B, H, N, d) in the dtype of v, with first derivatives. Sums over keys, g and 1/C are made
        in at least float32 under any autocast.

    Raises:
        ValueError: if r, mask or hebbian_scale does not fit.
    """
    batch, heads, n, m = k.shape
    if r is not None and r.shape != (heads, n, m):
        raise ValueError(f"astromorphic_attention: r must be {(heads, n, m)} as k is, not {tuple(r.shape)}")
    if mask is not None and mask.shape != (batch, n):
        raise ValueError(f"astromorphic_attention: mask must be {(batch, n)}, not {tuple(mask.shape)}")
    if isinstance(hebbian_scale, Tensor) and hebbian_scale.shape != (batch,):
        raise ValueError(
            f"astromorphic_attention: hebbian_scale must be a number or {(batch,)}, not {tuple(hebbian_scale.shape)}"
        )
    if not isinstance(hebbian_scale, Tensor):
        hebbian_scale = k.new_full((1,), m if hebbian_scale is None else hebbian_scale, dtype=_wide_type(k))
    form = _Form(alpha, hebbian_sigmoid, presynaptic_plasticity)
    scale_B111 = hebbian_scale.detach()[:, None, None, None]
    # Some versions of PyTorch (2.11) drop the gradient of `_Attention` while compiling; and the
    # compiler finds itself what to keep.
    if torch.compiler.is_compiling():
        return _plain_attention(form, q, k, v, r, mask, scale_B111)
    return _Attention.apply(form, q, k, v, r, mask, scale_B111)


@dataclass(frozen=True)
class _Form:
    alpha: float
    hebbian_sigmoid: bool
    presynaptic_plasticity: bool


def _plain_attention(
    form: _Form,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    r: Tensor | None,
    mask: Tensor | None,
    scale_B111: Tensor,
) -> Tensor:
    """Compute `astromorphic_attention` by plain operations, which the compiler can differentiate."""
    with no_autocast(q):
        phi_q_BHNm, phi_k_BHNm = (reference_feature_map(at_least_float32(x)) for x in (q, k))
        v_BHNd = at_least_float32(v)
        if mask is not None:
            absent_B1N1 = ~mask[:, None, :, None]
            phi_k_BHNm, v_BHNd = (
                phi_k_BHNm.masked_fill(absent_B1N1, 0),
                v_BHNd.masked_fill(absent_B1N1, 0),
            )
        write_BHNm = phi_k_BHNm if r is None else phi_k_BHNm + reference_feature_map(at_least_float32(r))
        hebbian_BHmd = write_BHNm.mT @ v_BHNd / scale_B111
        if form.hebbian_sigmoid:
            hebbian_BHmd = hebbian_BHmd.sigmoid()
        read_BHNd = phi_q_BHNm @ hebbian_BHmd
        if form.presynaptic_plasticity:
            normaliser_BHN1 = phi_q_BHNm @ calcium_response(phi_k_BHNm.sum(-2).unsqueeze(-1), form.alpha)
            read_BHNd = read_BHNd / normaliser_BHN1.clamp_min(SMALLEST_NORMALISER)
        return read_BHNd.to(v.dtype)


class _Attention(torch.autograd.Function):
    """Keeps its inputs and what is small, and computes the features again.

    The features outweigh the inputs several times.

    In the backward pass G is the gradient of L, and A = (G / C) H^T. Then dC = -(phi(Q) * A) 1 / C,
    dphi(Q) = A + dC g, dH = phi(Q)^T (G / C), and dphi(K) = V dH^T / s + dg alpha g / sum_t
    phi(k_t); phi' = min(phi, 1).
    """

    @staticmethod
    def forward(
        ctx: Any,
        form: _Form,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        r: Tensor | None,
        mask: Tensor | None,
        scale_B111: Tensor,
    ) -> Tensor:
        with no_autocast(q):
            phi_q_BHNm = _features(q)
            phi_k_BHNm, v_BHNd = _features(k, mask), _present(v, mask)
            write_BHNm = phi_k_BHNm if r is None else phi_k_BHNm + _features(r)
            hebbian_BHmd = write_BHNm.mT @ v_BHNd / scale_B111
            if form.hebbian_sigmoid:
                hebbian_BHmd = hebbian_BHmd.sigmoid()
            read_BHNd = phi_q_BHNm @ hebbian_BHmd
            sums_BHm1 = normaliser_BHN1 = None
            if form.presynaptic_plasticity:
                sums_BHm1 = phi_k_BHNm.sum(-2).unsqueeze(-1)
                normaliser_BHN1 = phi_q_BHNm @ calcium_response(sums_BHm1, form.alpha)
                read_BHNd.div_(normaliser_BHN1.clamp_min(SMALLEST_NORMALISER))
            ctx.form = form
            ctx.save_for_backward(q, k, v, r, mask, scale_B111, hebbian_BHmd, sums_BHm1, normaliser_BHN1)
            return read_BHNd.to(v.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        form: _Form = ctx.form
        q, k, v, r, mask, scale_B111, hebbian_BHmd, sums_BHm1, normaliser_BHN1 = ctx.saved_tensors
        with no_autocast(q):
            phi_q_BHNm, phi_k_BHNm, v_BHNd = _features(q), _features(k, mask), _present(v, mask)
            grad_BHNd = _wide(grads[0])
            if form.presynaptic_plasticity:
                clamped_BHN1 = normaliser_BHN1.clamp_min(SMALLEST_NORMALISER)
                grad_BHNd = grad_BHNd / clamped_BHN1
            grad_phi_q_BHNm = grad_BHNd @ hebbian_BHmd.mT
            grad_hebbian_BHmd = phi_q_BHNm.mT @ grad_BHNd / scale_B111
            if form.hebbian_sigmoid:
                grad_hebbian_BHmd = grad_hebbian_BHmd * hebbian_BHmd * (1 - hebbian_BHmd)
            grad_write_BHNm = v_BHNd @ grad_hebbian_BHmd.mT
            grad_r = None
            if r is None:
                grad_v_BHNd = phi_k_BHNm @ grad_hebbian_BHmd
            else:
                phi_r_HNm = _features(r)
                grad_v_BHNd = (phi_k_BHNm + phi_r_HNm) @ grad_hebbian_BHmd
                grad_r = (grad_write_BHNm.sum(0) * slope_(phi_r_HNm)).to(r.dtype)
            if form.presynaptic_plasticity:
                grad_normaliser_BHN1 = -(phi_q_BHNm * grad_phi_q_BHNm).sum(-1, keepdim=True) / clamped_BHN1
                grad_normaliser_BHN1 = grad_normaliser_BHN1.where(normaliser_BHN1 >= SMALLEST_NORMALISER, 0)
                response_BHm1 = calcium_response(sums_BHm1, form.alpha)
                grad_response_BHm1 = phi_q_BHNm.mT @ grad_normaliser_BHN1
                grad_phi_q_BHNm.addcmul_(grad_normaliser_BHN1, response_BHm1.mT)
                present_BHm1 = sums_BHm1 >= torch.finfo(sums_BHm1.dtype).tiny
                grad_sums_BHm1 = grad_response_BHm1 * form.alpha * response_BHm1 / sums_BHm1
                grad_write_BHNm.add_(grad_sums_BHm1.where(present_BHm1, 0).mT)
            grad_q = grad_phi_q_BHNm.mul_(slope_(phi_q_BHNm)).to(q.dtype)
            # Features of masked keys are 0, and so is their slope.
            grad_k = grad_write_BHNm.mul_(slope_(phi_k_BHNm)).to(k.dtype)
            return None, grad_q, grad_k, _present(grad_v_BHNd, mask).to(v.dtype), grad_r, None, None


def _wide_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _wide(x: Tensor) -> Tensor:
    return at_least_float32(x).contiguous()


def _features(x: Tensor, mask: Tensor | None = None) -> Tensor:
    phi = feature_map_(x.to(_wide_type(x), copy=True, memory_format=torch.contiguous_format))
    return phi if mask is None else phi.masked_fill_(~mask[:, None, :, None], 0)


def _present(x: Tensor, mask: Tensor | None) -> Tensor:
    wide_BHNd = _wide(x)
    return wide_BHNd if mask is None else wide_BHNd.masked_fill(~mask[:, None, :, None], 0)


def calcium_response(sums: Tensor, alpha: float) -> Tensor:
    """Return g, the sums of key features to the power alpha, elementwise."""
    # Clamped because the power's slope at 0 is infinite.
    return sums.clamp_min(torch.finfo(sums.dtype).tiny).pow(alpha)
