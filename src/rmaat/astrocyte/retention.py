r"""Retention factors: the weight RF(t, T) on the memory that segment t of T hands on.

The published definition [P] is the share of segment t in what the long-term process p^l gains over T cycles,

$$\mathrm{RF}(t, T) = \frac{\Delta p_t}{\sum_{i=1}^{T} \Delta p_i}, \qquad
  \Delta p_t = p^l(t\,\tau_\mathrm{cycle}) - p^l((t - 1)\,\tau_\mathrm{cycle}).$$
"""

import math
from collections.abc import Callable
from functools import lru_cache
from numbers import Integral, Real

import numpy as np

from rmaat.astrocyte.increments import checked_decay, retention_increments
from rmaat.astrocyte.model import MacroModel
from rmaat.astrocyte.nonlinearity import Array
from rmaat.errors import UserError
from rmaat.registry import Registry

Schedule = Callable[[int, MacroModel, float], Array]
"""(total T, model, constant) -> factors of segments 1 ... T, shape (T,)."""


def _ltp(total: int, model: MacroModel, constant: float) -> Array:
    """The simulated increments over their sum [P]."""
    return retention_increments(model).factors(total)


def _plateau(total: int, model: MacroModel, constant: float) -> Array:
    """e^{-(t-1)c} (1 - e^{-c}) / (1 - e^{-Tc}): the drive of p^l as strong in the first cycle as in all others [P]."""
    c = checked_decay(model)
    return np.exp(-c * np.arange(total)) * (math.expm1(-c) / math.expm1(-c * total))


def _streaming(total: int, model: MacroModel, constant: float) -> Array:
    """`ltp` for T to infinity: the simulated increments over the plateau of p^l, so that no T is needed [C]."""
    found = retention_increments(model)
    return np.exp(found.log(total) - found.log_sum)


def _constant(total: int, model: MacroModel, constant: float) -> Array:
    """The same factor for every segment [C]."""
    return np.full(total, constant)


def _none(total: int, model: MacroModel, constant: float) -> Array:
    """Ones: the memory is handed on as it is."""
    return np.ones(total)


SCHEDULES: Registry[Schedule] = Registry(
    "retention schedule",
    {"ltp": _ltp, "plateau": _plateau, "streaming": _streaming, "constant": _constant, "none": _none},
)
"""All schedules that are computed; `learned` factors are parameters of the network, started at `log_increments`."""

NEED_TOTAL = frozenset({"ltp", "plateau"})
"""The schedules whose factors depend on T; those of the others are the same for every T."""


def retention_factors(
    total: int, schedule: str = "ltp", model: MacroModel | None = None, constant: float = 0.5
) -> Array:
    """The factors RF(1, T) ... RF(T, T) of T = `total` segments, float64, shape (T,), read-only, no unit.

    `schedule` is a name in `SCHEDULES`. `ltp`, `plateau` and `streaming` are those of `model` (`MacroModel()` where it
    is None); the first two sum to 1. All three decrease strictly while in float64's normal range, then do not increase,
    and are never negative. `constant` is the factor of the schedule of that name, in 0 .. 1.

    A model is simulated when it is first asked for and kept; T costs nothing more. Raises `UserError` for T < 1, an
    unknown schedule, a constant out of range, and a model whose increments do not decrease (`ltp`, `streaming`), with
    the nearest parameter that mends it.
    """
    return _cached(_whole(total), schedule, MacroModel() if model is None else model, _fraction(constant))


def log_increments(total: int, model: MacroModel | None = None) -> Array:
    """log Dp_1 ... log Dp_T of the long-term process, float64, shape (T,); their softmax over T is `ltp`.

    Finite for every T, where the increments themselves leave float64's range. Raises `UserError` as
    `retention_factors` does for `ltp`.
    """
    return retention_increments(MacroModel() if model is None else model).log(_whole(total))


@lru_cache(maxsize=256)
def _cached(total: int, schedule: str, model: MacroModel, constant: float) -> Array:
    factors = SCHEDULES[schedule](total, model, constant)
    factors.flags.writeable = False
    return factors


def _whole(total: int) -> int:
    if isinstance(total, bool) or not isinstance(total, Integral) or total < 1:
        raise UserError(f"the number of segments is a whole number of at least 1, not {total!r}")
    return int(total)


def _fraction(constant: float) -> float:
    if isinstance(constant, bool) or not isinstance(constant, Real) or not 0 <= constant <= 1:
        raise UserError(f"a constant retention factor is in 0 .. 1, not {constant!r}")
    return float(constant)
