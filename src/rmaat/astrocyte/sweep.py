"""How the retention factors respond to one parameter: many models, simulated in parallel processes."""

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


@dataclass(frozen=True)
class SweepPoint:
    """One value of the swept parameter and the increments it gives."""

    value: float
    increments: Increments | None
    """None where `refusal` says why there are none."""
    refusal: str = ""


def parse_sweep(text: str) -> tuple[str, Array]:
    """`name=start:stop:count` as the name and its evenly spaced values; raises `UserError` for anything else."""
    form = f"--sweep is name=start:stop:count, such as tau_long=10:120:12, not '{text}'"
    name, equals, span = text.partition("=")
    if equals and name not in NUMBER_FIELDS:
        raise UserError(f"cannot sweep '{name}'; {did_you_mean(name, NUMBER_FIELDS)}")
    try:
        start, stop, count = span.split(":")
        first, last, number = float(start), float(stop), int(count)
    except ValueError:
        raise UserError(form) from None
    if number < 1 or not np.isfinite([first, last]).all():
        raise UserError(f"{form}; start and stop are finite, count is at least 1")
    return name, np.linspace(first, last, number)


def sweep_point(model: MacroModel, name: str, value: float) -> SweepPoint:
    """The increments of `model` with one parameter changed; a model that is refused gives a point that says why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatchWarning)
        try:
            found = simulate_increments(model.changed(name, value))
        except UserError as mistake:
            return SweepPoint(value, None, str(mistake))
    if not decreases(found.head):
        return SweepPoint(value, None, f"the long term's gain does not fall in cycle {len(found.head)}")
    return SweepPoint(value, found)


def sweep(
    model: MacroModel, name: str, values: Array, on_point: Callable[[], None], workers: int | None = None
) -> list[SweepPoint]:
    """The points of all values, in their order; `on_point` is called after each.

    `workers` processes (default: one for each processor, at most one for each value). Raises `UserError` where every
    value is refused.
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
        raise UserError(f"no value of {name} in the sweep gives retention factors; the first: {points[0].refusal}")
    return points
