"""Astromorphic attention with parts that the paper does not have [C].

    L_i = sum_j W_ij v_j / (s_i C_i)      W_ij = D_ij phi(q_i) . (phi(k_j) + phi(r_j))
                                          C_i = phi(q_i) . (sum_t D_it phi(k_t))^alpha

The decay D_ij = exp(-rate |i - j|) between tokens lets each head read near tokens more than far
ones, which linear attention without it can hardly do (arXiv 2502.16249). Memory reads all tokens
and is read by all of them: D is 1 there. Rotations and unit features replace phi, and the norm of
the reading replaces 1 / (s C). Without all of these L is that of `rmaat.attention.astro`.

Axes: B batch, H heads, N positions (M memory first, then S tokens), m features of queries and keys,
d features of values, C positions of one chunk, K = S / C chunks.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rmaat.attention.astro import SMALLEST_NORMALISER, calcium_response
from rmaat.attention.decay import CHUNK, in_chunks, sum_before
from rmaat.attention.features import feature_map
from rmaat.attention.precision import at_least_float32, no_autocast

NORM_EPSILON = 1e-6
"""Added to the mean square of a reading before the root: a reading of 0 stays 0."""

MEAN_SQUARE_FEATURE = 1 + 2 / math.sqrt(2 * math.pi) + math.exp(2) * math.erfc(math.sqrt(2)) / 2
"""The expectation of phi(x)^2 for standard normal x, about 1.97."""


def reference_decayed_attention(q: Tensor, k: Tensor, v: Tensor, rate: Tensor, num_memory: int) -> Tensor:
    """Return sum_j D_ij (q_i . k_j) v_j with the N x N matrix D; see `decayed_attention`."""
    return (q @ k.mT * decay_matrix(q.shape[-2], rate, num_memory)) @ v


def decay_matrix(length: int, rate: Tensor, num_memory: int) -> Tensor:
    """Return D, (H, N, N): exp(-rate |i - j|) between tokens, 1 if i or j is memory."""
    position_N = torch.arange(length, dtype=rate.dtype, device=rate.device)
    memory_N = position_N < num_memory
    distance_NN = (position_N[:, None] - position_N).abs()
    distance_NN = distance_NN.masked_fill(memory_N[:, None] | memory_N, 0)
    return torch.exp(-rate[:, None, None] * distance_NN)


def decayed_attention(q: Tensor, k: Tensor, v: Tensor, rate: Tensor, num_memory: int) -> Tensor:
    """Return sum_j D_ij (q_i . k_j) v_j in O(N m d), by chunks of tokens.

    Args:
        q, k: (B, H, N, m), features; rows of k at masked positions are 0.
        v: (B, H, N, d).
        rate: (H,), the decay of each head per position, >= 0.
        num_memory: M, the positions at the front without decay.

    Returns:
        (B, H, N, d), the dtype of v.
    """
    # Memory has no decay, so its keys and values are one sum that every position reads.
    sizes = [num_memory, q.shape[-2] - num_memory]
    (q_memory, q_tokens), (k_memory, k_tokens), (v_memory, v_tokens) = (x.split(sizes, -2) for x in (q, k, v))
    stored_BHmd = k_memory.mT @ v_memory
    read_BHSd = q_tokens @ stored_BHmd + _decayed_both_ways(q_tokens, k_tokens, v_tokens, rate[:, None, None])
    if num_memory == 0:
        return read_BHSd
    read_BHMd = q_memory @ (stored_BHmd + k_tokens.mT @ v_tokens)
    return torch.cat([read_BHMd, read_BHSd], -2)


def _decayed_both_ways(q: Tensor, k: Tensor, v: Tensor, rate_H11: Tensor) -> Tensor:
    """Return `decayed_attention` for tokens alone, (B, H, S, d)."""
    length = q.shape[-2]
    size = min(length, CHUNK)
    steps_C = torch.arange(size, dtype=rate_H11.dtype, device=rate_H11.device)
    q_BHKCm, k_BHKCm, v_BHKCd = (in_chunks(x, size) for x in (q, k, v))
    rate_H111 = rate_H11.unsqueeze(-3)
    # Within a chunk: the weights of all pairs of its positions.
    decay_H1CC = torch.exp(-rate_H111 * (steps_C[:, None] - steps_C).abs())
    read_BHKCd = (q_BHKCm @ k_BHKCm.mT * decay_H1CC) @ v_BHKCd
    if length > size:
        # Between chunks: each is summed to a matrix m x d as seen from its first position, and as
        # seen from its last one. The sums of the chunks before, and of those behind, are carried.
        to_first_H1C1 = torch.exp(-rate_H111 * steps_C[:, None])
        to_last_H1C1 = to_first_H1C1.flip(-2)
        from_before_BHKm_d = _carried((k_BHKCm * to_last_H1C1).mT @ v_BHKCd, rate_H11 * size)
        from_behind_BHKm_d = _carried(((k_BHKCm * to_first_H1C1).mT @ v_BHKCd).flip(-3), rate_H11 * size).flip(-3)
        # The neighbouring chunk's end is one step away from this chunk's beginning.
        one_step_H111 = torch.exp(-rate_H111)
        read_BHKCd = read_BHKCd + (q_BHKCm * (to_first_H1C1 * one_step_H111)) @ from_before_BHKm_d
        read_BHKCd = read_BHKCd + (q_BHKCm * (to_last_H1C1 * one_step_H111)) @ from_behind_BHKm_d
    return read_BHKCd.flatten(-3, -2)[..., :length, :]


def _carried(sums_BHKmd: Tensor, rate_H11: Tensor) -> Tensor:
    """Return for each chunk the decayed sum of the chunks before it, (B, H, K, m, d)."""
    return sum_before(sums_BHKmd.flatten(-2), rate_H11).unflatten(-1, sums_BHKmd.shape[-2:])


def decayed_sums(z: Tensor, rate: Tensor, num_memory: int) -> Tensor:
    """Return sum_j D_ij z_j, (B, H, N, m) -> the same, in O(N m)."""
    memory_BH1m, tokens = z[..., :num_memory, :].sum(-2, keepdim=True), z[..., num_memory:, :]
    rate_H11 = rate[:, None, None]
    beside = sum_before(tokens, rate_H11) + sum_before(tokens.flip(-2), rate_H11).flip(-2)
    near_BHSm = tokens + torch.exp(-rate_H11) * beside + memory_BH1m
    if num_memory == 0:
        return near_BHSm
    everything_BH1m = memory_BH1m + tokens.sum(-2, keepdim=True)
    return torch.cat([everything_BH1m.expand(*everything_BH1m.shape[:-2], num_memory, -1), near_BHSm], -2)


def rotations(length: int, width: int, like: Tensor) -> Tensor:
    """Return the cosines, then the sines of the angles of each position, (length, width // 2 * 2).

    Pair i of `width` features has the angle n / 10000^(2i / width) at position n (arXiv 2104.09864).
    The table is computed in float64, and has the dtype and the device of `like`.
    """
    half = width // 2
    speed = 10_000.0 ** -(torch.arange(half, dtype=torch.float64, device=like.device) / max(half, 1))
    angle = torch.arange(length, dtype=torch.float64, device=like.device)[:, None] * speed
    return torch.cat([angle.cos(), angle.sin()], -1).to(like.dtype)


def rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate pairs of the features of x (..., N, m) by the angles of their positions.

    Features i and i + m / 2 are a pair. The last feature of an odd m is left alone. `rotation` is
    (N, m // 2 * 2) of `rotations`, or has leading axes as x.
    """
    half = x.shape[-1] // 2
    cosine, sine = rotation.to(x.dtype).split(half, -1)
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], -1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine, rest], -1)


@dataclass(frozen=True)
class Extension:
    """The parts beyond the paper of one call.

    Attributes:
        num_memory: M, the memory positions at the front.
        rate: (H,), the decay of each head per position; None means no decay.
        unit_features: divide phi(q) and phi(k) by their lengths.
        rotation: the `rotations` of all positions of a segment, by which phi(q) and phi(k) are rotated
            where they meet; C has no rotation. None rotates nothing.
        gain: (H, 1, d), the factors of a reading that is divided by its root mean square instead of
            s C; None divides by s C.
    """

    num_memory: int
    rate: Tensor | None = None
    unit_features: bool = False
    rotation: Tensor | None = None
    gain: Tensor | None = None


def normed(read: Tensor) -> Tensor:
    """Return readings (..., d) divided by their root mean square, which removes any factor, s and C too."""
    return read / (read.square().mean(-1, keepdim=True) + NORM_EPSILON).sqrt()


def prepared(
    q: Tensor, k: Tensor, v: Tensor, r: Tensor | None, mask: Tensor, extension: Extension, index: Tensor | slice
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return phi(q), phi(k), what reads, what writes, and the values, in at least float32.

    Keys and values are 0 where the mask is False. What reads and writes is rotated, and the relative
    positions are added to what writes. `index` selects the positions from the extension's rotations.
    """
    absent_B1N1 = ~mask[:, None, :, None]
    phi_q, phi_k = (feature_map(at_least_float32(x)) for x in (q, k))
    if extension.unit_features:
        phi_q, phi_k = normalize(phi_q, dim=-1), normalize(phi_k, dim=-1)
    phi_k = phi_k.masked_fill(absent_B1N1, 0)
    values = at_least_float32(v).masked_fill(absent_B1N1, 0)
    # C is made of plain features: with rotated ones it could be 0 or negative.
    query, write = phi_q, phi_k
    if extension.rotation is not None:
        query, write = (rotated(x, extension.rotation[index]) for x in (phi_q, phi_k))
    if r is not None:
        phi_r = feature_map(at_least_float32(r))
        write = write + (normalize(phi_r, dim=-1) if extension.unit_features else phi_r)
    return phi_q, phi_k, query, write, values


def extended_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    r: Tensor | None,
    alpha: float,
    scale: Tensor | None,
    mask: Tensor,
    extension: Extension,
    *,
    presynaptic_plasticity: bool = True,
) -> Tensor:
    """Return L, astromorphic attention with the parts of `extension`, (B, H, N, d) in the dtype of v.

    Args:
        q, k, v, r, alpha, mask, presynaptic_plasticity: as in `astromorphic_attention`.
        scale: s, a tensor that fits (B, H, N, 1); None if the extension has a gain.
        extension: the parts.
    """
    with no_autocast(v):
        phi_q, phi_k, query, write, values = prepared(q, k, v, r, mask, extension, slice(k.shape[2]))
        rate, num_memory = extension.rate, extension.num_memory
        hebbian = (query, write, values)
        read_BHNd = query @ (write.mT @ values) if rate is None else decayed_attention(*hebbian, rate, num_memory)
        if extension.gain is not None:
            return (normed(read_BHNd) * extension.gain).to(v.dtype)
        assert scale is not None
        if presynaptic_plasticity:
            sums = phi_k.sum(-2, keepdim=True) if rate is None else decayed_sums(phi_k, rate, num_memory)
            response = calcium_response(sums, alpha)
            read_BHNd = read_BHNd / (phi_q * response).sum(-1, keepdim=True).clamp_min(SMALLEST_NORMALISER)
        return (read_BHNd / scale).to(v.dtype)
