"""Nyström attention: softmax attention through landmarks, and a convolution (arXiv 2102.03902).

Axes: B batch, H heads, N positions, L landmarks, m features of queries and keys, d features of
values.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from transformers import initialization as init

from rmaat.attention.base import AttentionMixer
from rmaat.attention.precision import at_least_float32, no_autocast
from rmaat.settings import ModelSettings


def reference_nystrom_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    num_landmarks: int,
    mask: Tensor,
) -> Tensor:
    """Return softmax(Q K~^T) softmax(Q~ K~^T)^+ softmax(Q~ K^T) V row by row, by the exact inverse.

    Q~ and K~ are means over runs of the row's tokens. Arguments and result are those of
    `nystrom_attention`, whose inverse is found by six steps of an iteration; a row needs a token.
    """

    def weights(queries_HNm: Tensor, keys_HNm: Tensor) -> Tensor:
        return (queries_HNm @ keys_HNm.mT / queries_HNm.shape[-1] ** 0.5).softmax(-1)

    rows = []
    for q_HNm, k_HNm, v_HNd, mask_N in zip(q, k, v, mask, strict=True):
        tokens = int(mask_N.sum())
        count = min(tokens, num_landmarks)
        run_n = torch.arange(tokens, device=q.device) * count // tokens
        q_HLm, k_HLm = (
            torch.stack([x[:, mask_N][:, run_n == run].mean(1) for run in range(count)], 1) for x in (q_HNm, k_HNm)
        )
        inverse_HLL = torch.linalg.pinv(weights(q_HLm, k_HLm))
        landmarks_HLd = inverse_HLL @ weights(q_HLm, k_HNm[:, mask_N]) @ v_HNd[:, mask_N]
        rows.append(weights(q_HNm, k_HLm) @ landmarks_HLd)
    return torch.stack(rows)


INVERSE_STEPS = 6
"""Steps of the iteration that inverts (arXiv 2102.03902)."""


def segment_mean_weights(mask: Tensor, num_landmarks: int, dtype: torch.dtype) -> Tensor:
    """Return the weights of the means over up to L runs of a row's tokens, (B, L, N).

    A row of n tokens has min(n, L) landmarks; token i is in run floor(i L / n), or its own where n
    <= L. With L a divisor of n the runs are equal. The weights of a landmark that the row does not
    have are 0.
    """
    count_B1 = mask.sum(1, keepdim=True)
    rank_BN = mask.cumsum(1) - 1
    run_BN = rank_BN * count_B1.clamp_max(num_landmarks) // count_B1.clamp_min(1)
    landmark_L1 = torch.arange(num_landmarks, device=mask.device)[:, None]
    member_BLN = ((run_BN[:, None] == landmark_L1) & mask[:, None]).to(dtype)
    return member_BLN / member_BLN.sum(-1, keepdim=True).clamp_min(1)


def iterative_inverse(x: Tensor, steps: int) -> Tensor:
    """Return the Moore-Penrose inverse of (..., L, L) by a third-order iteration.

    It is equation 11 of arXiv 2102.03902, and starts from x^T over the largest row and column sums
    of each matrix [C: the original takes the batch's, so that a sample's result depends on its
    neighbours].
    """
    identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    norms = x.abs().sum(-1).amax(-1) * x.abs().sum(-2).amax(-1)
    z = x.mT / norms[..., None, None]
    for _ in range(steps):
        xz = x @ z
        z = 0.25 * z @ (13 * identity - xz @ (15 * identity - xz @ (7 * identity - xz)))
    return z


def nystrom_attention(q: Tensor, k: Tensor, v: Tensor, num_landmarks: int, mask: Tensor) -> Tensor:
    """Return softmax(Q K~^T) softmax(Q~ K~^T)^+ softmax(Q~ K^T) V.

    Q~ and K~ are means over runs of tokens.

    Args:
        q, k: (B, H, N, m).
        v: (B, H, N, d).
        num_landmarks: L, the most that a row has.
        mask: (B, N) bool, True where there is a token; a row without any takes all positions, to
            stay finite.

    Returns:
        (B, H, N, d), the dtype of v, in O(N L), computed in at least float32 under any autocast. A
        row of at most L tokens gets softmax attention, as far as the inverse is found.
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
        inverse_BHLL = iterative_inverse(between_BHLL.masked_fill(lacking_B1L1, 0), INVERSE_STEPS)
        return (to_landmarks_BHNL @ (inverse_BHLL @ (from_landmarks_BHLN @ values))).to(v.dtype)


class NystromMixer(AttentionMixer):
    """Nyström attention with a depthwise convolution of the values beside it (arXiv 2102.03902).

    `convolution` (H, kernel) is one kernel a head, over positions. Projections have no biases, as
    in all mixers here [C].
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
