r"""Retention factors: the weight RF(t, T) on the memory that segment t of T hands on.

The published definition [P] is the share of segment t in what the long-term process p^l gains over T cycles,

    RF(t, T) = Dp_t / sum_{i=1..T} Dp_i,        Dp_t = p^l(t tau_cycle) - p^l((t - 1) tau_cycle).
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.registry import Registry

DEFAULT_DECAY_PER_CYCLE = 1.0 / 3.0
"""c = gamma^l tau_cycle / tau_p^l at the default constants [C]: 1 * 10 s / 30 s."""


def plateau_factors(total: int, decay: float = DEFAULT_DECAY_PER_CYCLE) -> NDArray[np.float64]:
    """RF(t, T) = e^{-(t-1)c} (1 - e^{-c}) / (1 - e^{-Tc}), the closed form on the plateau of p^l [P]; shape (T,)."""
    steps = np.arange(total, dtype=np.float64)
    return np.exp(-steps * decay) * np.expm1(-decay) / np.expm1(-total * decay)


def constant_ones(total: int) -> NDArray[np.float64]:
    """No retention: ones, shape (T,)."""
    return np.ones(total)


SCHEDULES: Registry = Registry("retention schedule", {"plateau": plateau_factors, "none": constant_ones})


@lru_cache(maxsize=4096)
def _cached(total: int, schedule: str) -> NDArray[np.float64]:
    factors = SCHEDULES[schedule](total)
    factors.flags.writeable = False
    return factors


def retention_factors(total: int, schedule: str = "plateau") -> NDArray[np.float64]:
    """The factors RF(1..T, T) of a schedule, float64, shape (T,), read-only.

    Raises `UserError` where T < 1 or the schedule is unknown.
    """
    if total < 1:
        raise UserError(f"retention factors need at least one segment, not {total}")
    return _cached(total, schedule)
