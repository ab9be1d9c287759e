"""Variational linear attention: recursive least squares as a memory (arXiv 2605.11196).

Axes: B batch, H heads, N positions, C positions of a chunk, m features of queries and keys, d
features of values.
"""

import torch
from torch import Tensor
from torch.nn.functional import elu, normalize, pad

from rmaat.attention.base import CausalAttentionMixer
from rmaat.attention.causal import CausalPositions, Tensors
from rmaat.attention.features import feature_map
from rmaat.attention.precision import at_least_float32, no_autocast
from rmaat.settings import ModelSettings


def reference_variational_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ridge_penalty: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Run the recurrence of `variational_linear_attention` token by token.

    Arguments and result are the same. What is read before the first token is 0 / 0, NaN.
    """
    phi_q, phi_k = elu(q) + 1, normalize(elu(k) + 1, dim=-1)
    present_BN111 = torch.ones_like(k[:, 0, :, 0]) if mask is None else mask.to(k.dtype)
    present_BN111 = present_BN111[..., None, None, None]
    inverse_BHmm = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device) / ridge_penalty
    state_BHdm = v.new_zeros(*v.shape[:2], v.shape[-1], k.shape[-1])
    keys_BHm1 = torch.zeros_like(phi_k[:, :, 0, :, None])
    count_B111 = torch.zeros_like(present_BN111[:, 0])
    read = []
    for t in range(k.shape[2]):
        # Column vectors.
        query, key, value = (x[:, :, t, :, None] for x in (phi_q, phi_k, v))
        present_B111 = present_BN111[:, t]
        change_BHmm = inverse_BHmm @ key @ key.mT @ inverse_BHmm / (1 + key.mT @ inverse_BHmm @ key)
        inverse_BHmm = inverse_BHmm - present_B111 * change_BHmm
        write = normalize(inverse_BHmm @ key, dim=-2)
        state_BHdm = state_BHdm + present_B111 * (value - state_BHdm @ key) @ write.mT
        keys_BHm1, count_B111 = keys_BHm1 + present_B111 * key, count_B111 + present_B111
        mean_key = keys_BHm1 / count_B111
        read.append(state_BHdm @ query / (mean_key.mT @ query))
    return torch.stack(read, 2).squeeze(-1)


CHUNK = 64
"""Positions whose recurrence is solved at once."""

SMALLEST_NORMALISER = 1e-6


def variational_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, ridge_penalty: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    r"""Read, after each token's write, a memory that each write corrects by what it would read.

    With $k = \phi(k) / |\phi(k)|$, $A_0 = I / \lambda$, $S_0 = 0$ and, at each token in turn,

    $$A_t = A_{t-1} - \frac{A_{t-1} k_t k_t^\top A_{t-1}}{1 + k_t^\top A_{t-1} k_t}, \quad
      w_t = \frac{A_t k_t}{|A_t k_t|}, \quad S_t = S_{t-1} + (v_t - S_{t-1} k_t) w_t^\top, \quad
      y_t = \frac{S_t \phi(q_t)}{\bar z_t \cdot \phi(q_t)}.$$

    A is the inverse of the keys' covariance plus $\lambda I$ (Sherman-Morrison); the write
    direction is of unit length (arXiv 2605.11196). [C]: keys are of unit length too, so that the
    error $v - S k$ is one of a bounded recurrence; $\bar z_t$ is the mean of the keys so far, not
    their sum, since S does not grow with t and its reading would fade.

    Within a chunk that begins with A and S, $L L^\top = I + K A K^\top$ and $F = L^{-1} K A$: row t
    of F has the direction $w_t$, and $F^\top F$ is what A loses. The errors E solve $(I +
    \mathrm{tril}(K W^\top, -1)) E = V - K S^\top$, the readings are $Q S^\top + \mathrm{tril}(Q
    W^\top) E$, and S gains $E^\top W$. Only chunks are looped over.

    Args:
        q, k: (B, H, N, m), before phi = elu + 1.
        v: (B, H, N, d).
        ridge_penalty: lambda, positive.
        mask: (B, N) bool, True where there is a token; other positions write nothing.

    Returns:
        (B, H, N, d), the dtype of v, computed in at least float32 under any autocast. Position t
        reads positions up to t.
    """
    if mask is None:
        mask = torch.ones(len(k), k.shape[2], dtype=torch.bool, device=k.device)
    batch, heads, _, width = k.shape
    beginning = empty_least_squares(batch, heads, width, v.shape[-1], ridge_penalty, at_least_float32(v))
    return advance_least_squares(q, k, v, mask, beginning)[0]


def empty_least_squares(
    batch: int, heads: int, width: int, value_width: int, ridge_penalty: float, like: Tensor
) -> Tensors:
    """Return A (B, H, m, m), S (B, H, d, m), the sum of keys (B, H, 1, m) and their number before the first."""
    inverse_mm = torch.eye(width, dtype=like.dtype, device=like.device) / ridge_penalty
    state_BHdm = like.new_zeros(batch, heads, value_width, width)
    keys_BH1m = like.new_zeros(batch, heads, 1, width)
    return inverse_mm.expand(batch, heads, -1, -1), state_BHdm, keys_BH1m, like.new_zeros(batch, 1, 1, 1)


def advance_least_squares(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, carried: Tensors) -> tuple[Tensor, Tensors]:
    """Return the readings of `variational_linear_attention` for a piece, and the state for the next piece."""
    with no_autocast(v):
        inverse_BHmm, state_BHdm, keys_BH1m, count_B111 = carried
        absent_B1N1 = ~mask[:, None, :, None]
        phi_q = feature_map(at_least_float32(q))
        phi_k = normalize(feature_map(at_least_float32(k)), dim=-1).masked_fill(absent_B1N1, 0)
        values = at_least_float32(v).masked_fill(absent_B1N1, 0)
        keys_BHNm = keys_BH1m + phi_k.cumsum(2)
        count_B1N1 = count_B111 + (~absent_B1N1).to(phi_k.dtype).cumsum(2)
        mean_key_BHNm = keys_BHNm / count_B1N1.clamp_min(1)
        normaliser_BHN1 = (mean_key_BHNm * phi_q).sum(-1, keepdim=True).clamp_min(SMALLEST_NORMALISER)
        read_BHNd, inverse_BHmm, state_BHdm = _recurrence(phi_q, phi_k, values, inverse_BHmm, state_BHdm)
        carried = inverse_BHmm, state_BHdm, keys_BHNm[:, :, -1:], count_B1N1[:, :, -1:]
        return (read_BHNd / normaliser_BHN1).to(v.dtype), carried


def _recurrence(
    q: Tensor, k: Tensor, v: Tensor, inverse_BHmm: Tensor, state_BHdm: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return S_t q_t for all t, (B, H, N, d), and A and S at the end; a key of zeros writes nothing."""
    n = k.shape[2]
    size = min(CHUNK, n)
    chunks = zip(*(pad(x, (0, 0, 0, -n % size)).split(size, 2) for x in (q, k, v)), strict=True)
    identity_CC = torch.eye(size, dtype=k.dtype, device=k.device)
    read = []
    for q_BHCm, k_BHCm, v_BHCd in chunks:
        keyed_BHCm = k_BHCm @ inverse_BHmm
        # The variant without a check of success does not wait for a GPU; I plus a positive part
        # cannot fail.
        factor_BHCC = torch.linalg.cholesky_ex(identity_CC + keyed_BHCm @ k_BHCm.mT).L
        loss_BHCm = torch.linalg.solve_triangular(factor_BHCC, keyed_BHCm, upper=False)
        write_BHCm = normalize(loss_BHCm, dim=-1)
        met_BHCC = identity_CC + (k_BHCm @ write_BHCm.mT).tril(-1)
        error_BHCd = torch.linalg.solve_triangular(
            met_BHCC, v_BHCd - k_BHCm @ state_BHdm.mT, upper=False, unitriangular=True
        )
        read.append(q_BHCm @ state_BHdm.mT + (q_BHCm @ write_BHCm.mT).tril() @ error_BHCd)
        state_BHdm = state_BHdm + error_BHCd.mT @ write_BHCm
        inverse_BHmm = inverse_BHmm - loss_BHCm.mT @ loss_BHCm
    return torch.cat(read, 2)[:, :, :n], inverse_BHmm, state_BHdm


class VariationalMixer(CausalAttentionMixer):
    """Variational linear attention (arXiv 2605.11196), half of the heads from each end.

    [C]: the recurrence is causal; in an encoder the second half of the heads reads the positions
    from the last to the first, so that a layer sees both sides. With an odd number of heads the
    forward half has one more. In a causal model all heads read forward.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.ridge_penalty = settings.ridge_penalty

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """Run the recurrence on the first half of the heads, and reversed on the second half."""
        half = -(-self.num_heads // 2)
        forward = variational_linear_attention(q[:, :half], k[:, :half], v[:, :half], self.ridge_penalty, mask_BN)
        q, k, v = (x[:, half:].flip(2) for x in (q, k, v))
        backward = variational_linear_attention(q, k, v, self.ridge_penalty, mask_BN.flip(1))
        return torch.cat([forward, backward.flip(2)], 1)

    def start(self, batch: int, like: Tensor) -> Tensors:
        """An empty memory."""
        width = self.head_width
        return empty_least_squares(batch, self.num_heads, width, width, self.ridge_penalty, at_least_float32(like))

    def attend_causally(
        self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, positions: CausalPositions, carried: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Run the recurrence on all heads."""
        return advance_least_squares(q, k, v, positions.mask, carried)
