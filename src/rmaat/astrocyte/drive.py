"""The drive b(t) of the neurons, cut into pieces of time in which it is smooth.

A drive is a train of cycles, a constant, an array of samples, or a function of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from rmaat.astrocyte.nonlinearity import Array
from rmaat.errors import UserError

if TYPE_CHECKING:
    from rmaat.astrocyte.model import MacroModel

DriveLike = Callable[[float], ArrayLike] | ArrayLike | None


@dataclass(frozen=True)
class Piece:
    """An interval of time in which the drive is smooth."""

    start: float
    """Start in seconds."""
    end: float
    """End in seconds."""
    value: Callable[[float], Array]
    """Function from a time in seconds to the drive b, shape (neurons,), presynaptic first."""


def cycle_pieces(model: MacroModel, index: int) -> Iterator[Piece]:
    """Yield the driven and the silent piece of cycle `index` (from 0) of the model's train [C]."""
    start = index * model.cycle
    end = (index + 1) * model.cycle
    off = start + model.duty * model.cycle
    amplitudes = np.full(model.num_neurons, model.amplitude)
    yield Piece(start, min(off, end), _constant_function(amplitudes))
    if off < end:
        yield Piece(off, end, _constant_function(np.zeros(model.num_neurons)))


def pieces(model: MacroModel, cycles: int, drive: DriveLike, breakpoints: Sequence[float]) -> list[Piece]:
    """Return the drive over `cycles` cycles as pieces; `simulate` describes its arguments.

    Raises:
        UserError: for a drive of the wrong shape or with a value that is not finite, and for
            breakpoints of a drive that is not a function.
    """
    if len(breakpoints) and not callable(drive):
        raise UserError("breakpoints are allowed only if drive is a function; leave them out")
    if drive is None:
        return [piece for index in range(cycles) for piece in cycle_pieces(model, index)]
    end = cycles * model.cycle
    if callable(drive):
        return _function_pieces(model, drive, breakpoints, end)
    return _sample_pieces(model, drive, end)


def _constant_function(value: Array) -> Callable[[float], Array]:
    return lambda time: value


def _sample_pieces(model: MacroModel, drive: ArrayLike, end: float) -> list[Piece]:
    try:
        samples = np.asarray(drive, dtype=np.float64)
    except (TypeError, ValueError):
        message = "drive must be a number, an array of numbers or a function of time"
        raise UserError(message) from None
    if samples.ndim == 0:
        samples = samples[None]
    if samples.ndim == 1:
        samples = np.repeat(samples[:, None], model.num_neurons, axis=1)
    if samples.ndim != 2 or samples.shape[0] < 1 or samples.shape[1] != model.num_neurons:
        raise UserError(
            f"drive has shape {np.shape(drive)}; it must have shape (samples,), for equal neurons, "
            f"or (samples, {model.num_neurons}), for {model.num_pre} presynaptic neurons followed "
            f"by {model.num_post} postsynaptic ones"
        )
    if not np.isfinite(samples).all():
        raise UserError("drive contains a value that is not a finite number")
    edges = np.linspace(0.0, end, len(samples) + 1)
    return [
        Piece(float(start), float(stop), _constant_function(row))
        for (start, stop), row in zip(pairwise(edges), samples, strict=True)
    ]


def _function_pieces(
    model: MacroModel, drive: Callable[[float], ArrayLike], breakpoints: Sequence[float], end: float
) -> list[Piece]:
    def checked_drive(time: float) -> Array:
        value = np.asarray(drive(time), dtype=np.float64)
        if value.shape not in ((), (model.num_neurons,)):
            raise UserError(
                f"drive({time:g}) has shape {value.shape}; it must be a number or have shape "
                f"({model.num_neurons},), for {model.num_pre} presynaptic neurons followed by "
                f"{model.num_post} postsynaptic ones"
            )
        if not np.isfinite(value).all():
            raise UserError(f"drive({time:g}) is not a finite number")
        return np.broadcast_to(value, (model.num_neurons,))

    inner = sorted({float(time) for time in breakpoints if 0 < time < end})
    edges = [0.0, *inner, end]
    return [Piece(a, b, _clamped(checked_drive, a, b)) for a, b in pairwise(edges)]


def _clamped(value: Callable[[float], Array], start: float, end: float) -> Callable[[float], Array]:
    # At a jump the user's function may return the value of either side. Evaluating strictly inside
    # the piece gives the value of the piece's side.
    low, high = np.nextafter(start, end), np.nextafter(end, start)
    return lambda time: value(float(min(max(time, low), high)))
