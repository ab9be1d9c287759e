"""Sweeps: retention factors as a function of one parameter, simulated in parallel processes."""

import multiprocessing
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np

from rmaat.astrocyte.increments import Increments, decreases, simulate_increments
from rmaat.astrocyte.model import NUMBER_FIELDS, LatchWarning, MacroModel
from rmaat.astrocyte.nonlinearity import Array
from rmaat.errors import UserError, did_you_mean

MOST_POINTS = 10_000


@dataclass(frozen=True)
class SweepPoint:
    """One value of the swept parameter, with its increments or the reason why there are none."""

    value: float
    """Value of the parameter, in the parameter's unit."""
    increments: Increments | None
    """Increments of the model, or None if it has no retention factors."""
    refusal: str = ""
    """Error message if `increments` is None, else empty."""


def parse_sweep(text: str) -> tuple[str, Array]:
    """Return the name and the evenly spaced values, shape (count,), of `name=start:stop:count`.

    Raises:
        UserError: for text of another form, and for a parameter that cannot be swept.
    """
    message = f"--sweep must be name=start:stop:count, such as tau_long=10:120:12, not '{text}'"
    name, equals, limits = text.partition("=")
    if equals and name not in NUMBER_FIELDS:
        raise UserError(f"cannot sweep '{name}'; {did_you_mean(name, NUMBER_FIELDS)}")
    try:
        start, stop, count = limits.split(":")
        first, last, number = float(start), float(stop), int(count)
    except ValueError:
        raise UserError(message) from None
    if not 1 <= number <= MOST_POINTS or not np.isfinite([first, last]).all():
        raise UserError(f"{message}; start and stop must be finite, and count at least 1 and at most {MOST_POINTS:,}")
    return name, np.linspace(first, last, number)


def sweep_point(model: MacroModel, name: str, value: float) -> SweepPoint:
    """Return the sweep point of `model` with one parameter changed.

    If that model has no retention factors, the point contains the error message instead.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatchWarning)
        try:
            # `retention_increments` would also search a remedy, which a sweep does not need.
            increments = simulate_increments(model.changed(name, value))
        except UserError as error:
            return SweepPoint(value, None, str(error))
    if not decreases(increments.head):
        cycle = len(increments.head)
        message = f"the gain of the long-term process does not fall in cycle {cycle}"
        return SweepPoint(value, None, message)
    return SweepPoint(value, increments)


def sweep(
    model: MacroModel, name: str, values: Array, on_point: Callable[[], None], workers: int | None = None
) -> list[SweepPoint]:
    """Return the sweep points of all values, in the order of the values.

    Args:
        model: macro model before the change.
        name: parameter to change, one of `NUMBER_FIELDS`.
        values: values of the parameter, shape (count,).
        on_point: function to call after each point.
        workers: number of processes; the default is one per processor, and at most one per value.

    Raises:
        UserError: if no value gives retention factors.
    """
    workers = min(workers or os.cpu_count() or 1, len(values))
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(sweep_point, model, name, float(value)) for value in values]
        try:
            for _ in as_completed(futures):
                on_point()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    points = [future.result() for future in futures]
    if all(point.increments is None for point in points):
        value, refusal = points[0].value, points[0].refusal
        raise UserError(f"no value of {name} gives retention factors; {name} {value:g}: {refusal}")
    return points
