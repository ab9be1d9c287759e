"""What drives the neurons: a train of cycles, a constant, samples held for equal times, or a function of time."""

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
    """A stretch of time in which the drive is smooth."""

    start: float
    end: float
    value: Callable[[float], Array]
    """Time in seconds to the drive b of all neurons, shape (neurons,), presynaptic neurons first."""


def cycle_pieces(model: MacroModel, index: int) -> Iterator[Piece]:
    """The driven and the silent part of cycle `index` (from 0) of the model's own train."""
    start = index * model.cycle
    end = (index + 1) * model.cycle
    off = start + model.duty * model.cycle
    yield Piece(start, min(off, end), _held(np.full(model.num_neurons, model.amplitude)))
    if off < end:
        yield Piece(off, end, _held(np.zeros(model.num_neurons)))


def pieces(model: MacroModel, cycles: int, drive: DriveLike, breakpoints: Sequence[float]) -> list[Piece]:
    """The drive over `cycles` cycles as pieces; `simulate` says what a drive may be and what is refused."""
    if len(breakpoints) and not callable(drive):
        raise UserError("breakpoints belong to a drive given as a function of time; the times of the others are known")
    if drive is None:
        return [piece for index in range(cycles) for piece in cycle_pieces(model, index)]
    end = cycles * model.cycle
    if callable(drive):
        return _smooth_pieces(model, drive, breakpoints, end)
    return _held_pieces(model, drive, end)


def _held(value: Array) -> Callable[[float], Array]:
    return lambda time: value


def _held_pieces(model: MacroModel, drive: ArrayLike, end: float) -> list[Piece]:
    try:
        samples = np.asarray(drive, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError("drive is a number, an array of numbers or a function of time") from None
    if samples.ndim == 0:
        samples = samples[None]
    if samples.ndim == 1:
        samples = np.repeat(samples[:, None], model.num_neurons, axis=1)
    if samples.ndim != 2 or samples.shape[0] < 1 or samples.shape[1] != model.num_neurons:
        raise UserError(
            f"drive has shape {np.shape(drive)}; allowed are (samples,) for all neurons alike or "
            f"(samples, {model.num_neurons}) for {model.num_pre} presynaptic, then {model.num_post} postsynaptic"
        )
    if not np.isfinite(samples).all():
        raise UserError("drive holds a value that is not a finite number")
    edges = np.linspace(0.0, end, len(samples) + 1)
    return [Piece(float(a), float(b), _held(row)) for (a, b), row in zip(pairwise(edges), samples, strict=True)]


def _smooth_pieces(
    model: MacroModel, drive: Callable[[float], ArrayLike], breakpoints: Sequence[float], end: float
) -> list[Piece]:
    def value(time: float) -> Array:
        given = np.asarray(drive(time), dtype=np.float64)
        if given.shape not in ((), (model.num_neurons,)):
            raise UserError(
                f"drive({time:g}) has shape {given.shape}; a number or ({model.num_neurons},) is needed, "
                f"{model.num_pre} presynaptic neurons, then {model.num_post} postsynaptic"
            )
        if not np.isfinite(given).all():
            raise UserError(f"drive({time:g}) is not a finite number")
        return np.broadcast_to(given, (model.num_neurons,))

    inner = sorted({float(time) for time in breakpoints if 0 < time < end})
    edges = [0.0, *inner, end]
    return [Piece(a, b, _inside(value, a, b)) for a, b in pairwise(edges)]


def _inside(value: Callable[[float], Array], start: float, end: float) -> Callable[[float], Array]:
    # At its ends a piece must see its own side of a jump, whichever side the user's function takes there.
    low, high = np.nextafter(start, end), np.nextafter(end, start)
    return lambda time: value(float(min(max(time, low), high)))
