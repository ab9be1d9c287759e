"""Retention factor: RF(t, T) = Dp_t / (Dp_1 + ... + Dp_T), for segment t of T [P].

    Dp_t = p^l(t * tau_cycle) - p^l((t - 1) * tau_cycle)

The memory that segment t passes to segment t + 1 is multiplied by RF(t, T) [P]. One segment
corresponds to one cycle of tau_cycle seconds. p^l is the astrocyte's long-term process, averaged
over synapses. p^l, Dp_t and RF have no unit. `increments.py` simulates Dp_t.

This definition is the schedule `ltp`. Each other schedule in this module has its own formula.

Sources: [P] RMAAT, arXiv 2601.00426; [C] this project's choice.
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
"""Function (total T, model, constant) -> factors of segments 1 ... T, shape (T,), no unit."""


def _ltp(total: int, model: MacroModel, constant: float) -> Array:
    """Return Dp_t / (Dp_1 + ... + Dp_T) of the simulated increments [P]."""
    return retention_increments(model).factors(total)


def _plateau(total: int, model: MacroModel, constant: float) -> Array:
    """Return e^{-(t-1)c} (1 - e^{-c}) / (1 - e^{-Tc}), with c = gamma^l tau_cycle / tau_p^l [P].

    This is RF if the drive of p^l is equal in all cycles. In the simulation it is weaker in the
    first cycles.
    """
    c = checked_decay(model)
    return np.exp(-c * np.arange(total)) * (math.expm1(-c) / math.expm1(-c * total))


def _streaming(total: int, model: MacroModel, constant: float) -> Array:
    """Return Dp_t / (Dp_1 + Dp_2 + ...) [C].

    The denominator is the plateau of p^l, so the factors do not depend on T.
    """
    increments = retention_increments(model)
    return np.exp(increments.log(total) - increments.log_sum)


def _constant(total: int, model: MacroModel, constant: float) -> Array:
    """Return the factor `constant` for every segment [C]."""
    return np.full(total, constant)


def _none(total: int, model: MacroModel, constant: float) -> Array:
    """Return the factor 1 for every segment, which leaves the memory unchanged [C]."""
    return np.ones(total)


SCHEDULES: Registry[Schedule] = Registry(
    "retention schedule",
    {"ltp": _ltp, "plateau": _plateau, "streaming": _streaming, "constant": _constant, "none": _none},
)
"""All schedules that are computed. `learned` factors are parameters of the network instead, with
`log_increments` as initial values."""

NEED_TOTAL = frozenset({"ltp", "plateau"})
"""The schedules whose factors depend on T."""


def retention_factors(
    total: int, schedule: str = "ltp", model: MacroModel | None = None, constant: float = 0.5
) -> Array:
    """Return the retention factors RF(1, T) ... RF(T, T) of T = `total` segments.

    The factors of `ltp` and `plateau` sum to 1. The factors of `ltp`, `plateau` and `streaming`
    decrease strictly within float64's normal range. Below that range they may be equal, but they
    never increase and are never negative. Each model is simulated once and cached for all T.

    Args:
        total: number of segments T, at least 1.
        schedule: name in `SCHEDULES`.
        model: macro model of the schedules `ltp`, `plateau` and `streaming`; None means
            `MacroModel()`.
        constant: factor of the schedule `constant`, from 0 to 1, no unit.

    Returns:
        The factors, float64, shape (T,), read-only, no unit.

    Raises:
        UserError: for T < 1, an unknown schedule, a constant out of range, and a model whose
            increments do not decrease (`ltp`, `streaming`). The last message names the smallest
            change of a parameter that makes them decrease.
    """
    return _cached(
        _checked_total(total),
        schedule,
        MacroModel() if model is None else model,
        _checked_constant(constant),
    )


def log_increments(total: int, model: MacroModel | None = None) -> Array:
    """Return log Dp_1 ... log Dp_T of the long-term process; their softmax over T is `ltp`.

    The logarithms are finite for every T, even if the increments underflow float64.

    Args:
        total: number of segments T, at least 1.
        model: macro model; None means `MacroModel()`.

    Returns:
        The logarithms, float64, shape (T,), no unit.

    Raises:
        UserError: as `retention_factors` does for `ltp`.
    """
    return retention_increments(MacroModel() if model is None else model).log(_checked_total(total))


@lru_cache(maxsize=256)
def _cached(total: int, schedule: str, model: MacroModel, constant: float) -> Array:
    factors = SCHEDULES[schedule](total, model, constant)
    factors.flags.writeable = False
    return factors


def _checked_total(total: int) -> int:
    if isinstance(total, bool) or not isinstance(total, Integral) or total < 1:
        raise UserError(f"the number of segments must be a whole number >= 1, not {total!r}")
    return int(total)


def _checked_constant(constant: float) -> float:
    if isinstance(constant, bool) or not isinstance(constant, Real) or not 0 <= constant <= 1:
        raise UserError(f"the constant retention factor must be from 0 to 1, not {constant!r}")
    return float(constant)
