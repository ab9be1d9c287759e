"""An associative memory: keys write values into a matrix by the delta rule, queries read it.

Two rules: that of arXiv 2407.04841, whose reading is divided by a sum of keys, and one without that
sum [C].

Axes: B batch, N positions that read, M positions that write, W positions offered for writing, d
width of queries and keys, P = 6 d features of a key, D width of values, E = D + 1
columns of the first rule, D of the second.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, normalize, relu

from rmaat.attention.precision import at_least_float32, no_autocast
from rmaat.layers.zero_linear import ZeroLinear
from rmaat.settings import ModelSettings

ROLLS = 3
"""nu of DPFP [C: as in arXiv 2407.04841]."""

SMALLEST_NORMALISER = 1e-5
"""The lower bound of z . phi as a divisor. An empty memory is read as 0."""


def key_features(x: Tensor) -> Tensor:
    """Return DPFP-3 (arXiv 2102.11174), (..., d) -> (..., 2 ROLLS d), >= 0, of length 1 or 0.

    With x' = [relu(x), relu(-x)], the features are x' * roll(x', j) for j = 1 .. 3, concatenated.
    They are scaled to length 1 [C: as in the code of arXiv 2407.04841].
    """
    # Each feature is a product of two entries j apart, so different keys share few features.
    signs = relu(torch.cat([x, -x], -1))
    return normalize(torch.cat([signs * signs.roll(j, -1) for j in range(1, ROLLS + 1)], -1), dim=-1)


def associative_read(q: Tensor, associations: Tensor) -> Tensor:
    """Return A^T phi(q) / (z . phi(q)); 0 from an empty memory.

    Args:
        q: (B, N, d), before phi.
        associations: (B, P, E), the matrix A (P, D) and, as its last column, the sum of keys z (P).

    Returns:
        (B, N, D) in the dtype of q, computed in at least float32 under any autocast.
    """
    with no_autocast(q):
        return _recall(key_features(at_least_float32(q)), associations)[0].to(q.dtype)


def associative_write(k: Tensor, v: Tensor, strength: Tensor, associations: Tensor) -> Tensor:
    r"""Return the associations after M keys wrote values by the delta rule (arXiv 2407.04841).

    $$A \mathrel{+}= \sum_m \beta_m\,\phi(k_m)(v_m - \bar v_m)^\top, \quad
      z \mathrel{+}= \sum_m \gamma_m\,\phi(k_m), \quad
      \bar v = \frac{A^\top\phi(k)}{z\cdot\phi(k)}, \quad
      \gamma = 1 - \frac{z\cdot\phi(k)}{|\phi(k)|^2}$$

    gamma is clipped to [0, 1] and has no gradient. All M keys are written at once: each corrects
    the associations from before the call, not those of the other keys, as in that paper's code.

    Args:
        k: (B, M, d), before phi.
        v: (B, M, D).
        strength: (B, M, 1), beta in [0, 1].
        associations: (B, P, E), as in `associative_read`; zeros are an empty memory.

    Returns:
        (B, P, E) in the dtype of the associations, computed in at least float32 under any autocast.
    """
    with no_autocast(k):
        phi_BMP = key_features(at_least_float32(k))
        previous_BMD, overlap_BM1 = _recall(phi_BMP, associations)
        # No division by |phi|^2: it is 1, or it is 0 and the key writes nothing.
        novelty_BM1 = (1 - overlap_BM1).clamp(0, 1).detach()
        # The last column accumulates z: a key that is stored already adds nothing to it.
        change_BME = torch.cat([at_least_float32(strength) * (at_least_float32(v) - previous_BMD), novelty_BM1], -1)
        return associations + (phi_BMP.mT @ change_BME).to(associations.dtype)


def _recall(phi: Tensor, associations: Tensor) -> tuple[Tensor, Tensor]:
    """Return A^T phi / (z . phi), (B, N, D), and z . phi, (B, N, 1)."""
    # One product gives numerator and denominator, because z is the last column.
    summed_BNE = phi @ associations.to(phi.dtype)
    overlap_BN1 = summed_BNE[..., -1:]
    return summed_BNE[..., :-1] / overlap_BN1.clamp_min(SMALLEST_NORMALISER), overlap_BN1


def delta_read(q: Tensor, associations: Tensor) -> Tensor:
    """Return A^T phi(q); 0 from an empty memory, and from one without a similar key [C].

    Args:
        q: (B, N, d), before phi.
        associations: (B, P, D), the matrix A.

    Returns:
        (B, N, D) in the dtype of q, computed in at least float32 under any autocast.
    """
    with no_autocast(q):
        phi_BNP = key_features(at_least_float32(q))
        return (phi_BNP @ associations.to(phi_BNP.dtype)).to(q.dtype)


def delta_write(k: Tensor, v: Tensor, strength: Tensor, associations: Tensor) -> Tensor:
    r"""Return the associations after M keys wrote values by the delta rule, all at once [C].

    $$A \mathrel{+}= \sum_m \eta_m\,\phi(k_m)(v_m - A^\top\phi(k_m))^\top, \quad
      \eta_m = \frac{\beta_m}{\max(1, \sum_j \beta_j\,\phi(k_j)\cdot\phi(k_m))}$$

    The divisor counts the keys of the call that are like m. Without it, equal keys in one call would
    overshoot together, and A would diverge. With it no write increases the distance between two
    memories: the eigenvalues of sum_m eta_m phi_m phi_m^T are those of a matrix with the entries
    beta_j phi_m . phi_j / max(1, sum_j beta_j phi_m . phi_j), which are not negative, so they are at
    most its largest row sum, 1. A key of strength 0 changes nothing.

    Args:
        k: (B, M, d), before phi.
        v: (B, M, D).
        strength: (B, M, 1), beta in [0, 1].
        associations: (B, P, D), the matrix A; zeros are an empty memory.

    Returns:
        (B, P, D) in the dtype of the associations, computed in at least float32 under any autocast.
    """
    with no_autocast(k):
        strength, phi_BMP = at_least_float32(strength), key_features(at_least_float32(k))
        # The sum over j by one vector, in O(M P): the products of all pairs would take O(M^2 P).
        keys_B1P = (strength * phi_BMP).sum(1, keepdim=True)
        step_BM1 = strength / (phi_BMP * keys_B1P).sum(-1, keepdim=True).clamp_min(1)
        error_BMD = at_least_float32(v) - phi_BMP @ associations.to(phi_BMP.dtype)
        return associations + (phi_BMP.mT @ (step_BM1 * error_BMD)).to(associations.dtype)


STRETCH = 0.1
"""The stretched gate reaches from -STRETCH to 1 + STRETCH before it is clamped to [0, 1]."""


def stretched_gate(x: Tensor) -> Tensor:
    """Return a gate in [0, 1] that reaches 0 and 1: a clamped, wider sigmoid (arXiv 1712.01312).

    Closed or fully open it has no gradient.
    """
    return ((1 + 2 * STRETCH) * x.sigmoid() - STRETCH).clamp(0, 1)


class AssociativeMemory(nn.Module):
    """A memory that every position reads before a layer (arXiv 2407.04841).

    The memory positions, or all positions, write the layer's outputs to it, normalised in a pre-norm
    model with the rule of `delta_write` [C]. If all positions write,
    the map of queries computes the keys too [C]: equal tokens then have equal keys and queries from
    the first step on.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width, size = settings.hidden_size, settings.associative_size
        self.query = nn.Linear(width, size, bias=False)
        self.key = nn.Linear(width, size, bias=False) if settings.associative_writers == "memory" else None
        # Values start at 0, so an untrained memory changes no output.
        self.value = ZeroLinear(width, width, bias=False)
        self.strength = nn.Linear(width, 1)
        self.delta = settings.associative_rule == "delta"
        # A pre-norm layer's output holds what the layers before it read, and grows with it. What is
        # written is read again, so without a norm the memory would amplify itself.
        self.normed = self.delta and settings.norm_first

    def read(self, x_BND: Tensor, associations_BPE: Tensor) -> Tensor:
        """Return the values that the positions recall, (B, N, D)."""
        return (delta_read if self.delta else associative_read)(self.query(x_BND), associations_BPE)

    def write(self, x_BWD: Tensor, associations_BPE: Tensor, writes_BW: Tensor) -> Tensor:
        """Return the associations after the write, (B, P, E).

        `writes_BW`, (B, W) or (B, 1), is True for the positions that write.
        """
        # Positions that do not write get the key 0, which writes nothing. Selecting between the
        # matrices after the write would copy all of them.
        x_BWD = layer_norm(x_BWD, x_BWD.shape[-1:]) if self.normed else x_BWD
        to_key = self.query if self.key is None else self.key
        key_BWd = to_key(x_BWD).masked_fill(~writes_BW[..., None], 0)
        logit_BW1, value_BWD = self.strength(x_BWD), self.value(x_BWD)
        if self.delta:
            return delta_write(key_BWd, value_BWD, stretched_gate(logit_BW1), associations_BPE)
        return associative_write(key_BWd, value_BWD, logit_BW1.sigmoid(), associations_BPE)
