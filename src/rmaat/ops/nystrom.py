"""Nyström attention: softmax attention through landmarks (arXiv 2102.03902).

Axes: B batch, H heads, N positions, L landmarks, m features of queries and keys, d features of values.
"""

import torch
from torch import Tensor

from rmaat.ops.precision import at_least_float32, no_autocast

INVERSE_STEPS = 6


def segment_mean_weights(mask: Tensor, num_landmarks: int, dtype: torch.dtype) -> Tensor:
    """The weights that average the tokens of each row in up to L runs of like length, (B, L, N).

    A row of n tokens has min(n, L) landmarks; token i is in run floor(i L / n), or its own where n <= L. With L a divisor of n the
    runs are equal. The weights of a landmark that the row does not have are 0.
    """
    count_B1 = mask.sum(1, keepdim=True)
    rank_BN = mask.cumsum(1) - 1
    run_BN = rank_BN * count_B1.clamp_max(num_landmarks) // count_B1.clamp_min(1)
    landmark_L1 = torch.arange(num_landmarks, device=mask.device)[:, None]
    member_BLN = ((run_BN[:, None] == landmark_L1) & mask[:, None]).to(dtype)
    return member_BLN / member_BLN.sum(-1, keepdim=True).clamp_min(1)


def iterative_inverse(x: Tensor, steps: int = INVERSE_STEPS) -> Tensor:
    """The Moore-Penrose inverse of (..., L, L) by a third-order iteration (arXiv 2102.03902, equation 11).

    It starts from x^T over the largest row and column sums, of each matrix by itself [C: the original takes the batch's, so
    that a sample's result depends on its neighbours].
    """
    identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    norms = x.abs().sum(-1).amax(-1) * x.abs().sum(-2).amax(-1)
    z = x.mT / norms[..., None, None]
    for _ in range(steps):
        xz = x @ z
        z = 0.25 * z @ (13 * identity - xz @ (15 * identity - xz @ (7 * identity - xz)))
    return z


def nystrom_attention(q: Tensor, k: Tensor, v: Tensor, num_landmarks: int, mask: Tensor) -> Tensor:
    """softmax(Q K~^T) softmax(Q~ K~^T)^+ softmax(Q~ K^T) V, Q~ and K~ being means over runs of tokens.

    Args:
        q, k: (B, H, N, m).
        v: (B, H, N, d).
        num_landmarks: L, the most that a row has.
        mask: (B, N) bool, True where there is a token; a row without any takes all positions, to stay finite.

    Returns:
        (B, H, N, d), the dtype of v, in O(N L), computed in at least float32 under any autocast. A row of at most L tokens gets
        softmax attention, as far as the inverse is found.
    """
    with no_autocast(v):
        scale = q.shape[-1] ** -0.25
        q, k, values = at_least_float32(q) * scale, at_least_float32(k) * scale, at_least_float32(v)
        mask = mask | ~mask.any(1, keepdim=True)
        mean_B1LN = segment_mean_weights(mask, num_landmarks, q.dtype)[:, None]
        absent_B11N = ~mask[:, None, None]
        lacking_B11L = (mean_B1LN.sum(-1) == 0)[:, :, None]
        lacking_B1L1 = lacking_B11L.mT
        q_BHLm, k_BHLm = mean_B1LN @ q, mean_B1LN @ k
        to_landmarks_BHNL = (q @ k_BHLm.mT).masked_fill(lacking_B11L, -torch.inf).softmax(-1)
        between_BHLL = (q_BHLm @ k_BHLm.mT).masked_fill(lacking_B11L, -torch.inf).softmax(-1)
        from_landmarks_BHLN = (q_BHLm @ k.mT).masked_fill(absent_B11N, -torch.inf).softmax(-1)
        # Zero rows beside zero columns: the inverse of what is left, in the same places.
        inverse_BHLL = iterative_inverse(between_BHLL.masked_fill(lacking_B1L1, 0))
        return (to_landmarks_BHNL @ (inverse_BHLL @ (from_landmarks_BHLN @ values))).to(v.dtype)
