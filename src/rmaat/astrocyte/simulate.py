"""Solver of the macro model's equations, which starts anew at each jump of the drive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from rmaat.astrocyte.drive import DriveLike, Piece, pieces
from rmaat.astrocyte.nonlinearity import NONLINEARITIES, Array
from rmaat.errors import UserError
from rmaat.values import Range, checked

if TYPE_CHECKING:
    from rmaat.astrocyte.model import MacroModel

RTOL = 1e-9
"""Relative tolerance of the solver [C]."""
ATOL = 1e-13
"""Absolute tolerance of the solver [C]; the states are of order 1 and have no unit."""
STIFF_RATIO = 200.0
"""Ratio of a piece's length to the shortest time constant, above which the solver is implicit [C].
The implicit method is faster above this ratio."""


@dataclass(frozen=True)
class Layout:
    """Slices of the variables in the flat state vector (x, y, s, p^s, p^l)."""

    num_pre: int
    num_post: int

    @property
    def size(self) -> int:
        """Length of the state vector."""
        return self.num_pre + self.num_post + 3 * self.num_pre * self.num_post

    @property
    def neurons(self) -> slice:
        """Slice of x and y."""
        return slice(0, self.num_pre + self.num_post)

    @property
    def synapse(self) -> slice:
        """Slice of s, row by row of presynaptic neurons."""
        return self._synaptic(0)

    @property
    def short_term(self) -> slice:
        """Slice of p^s, in the order of s."""
        return self._synaptic(1)

    @property
    def long_term(self) -> slice:
        """Slice of p^l, in the order of s."""
        return self._synaptic(2)

    def _synaptic(self, index: int) -> slice:
        start = self.num_pre + self.num_post + index * self.num_pre * self.num_post
        return slice(start, start + self.num_pre * self.num_post)


@dataclass(frozen=True)
class Simulation:
    """Traces of one simulation at S times.

    Time is in seconds from 0 to the end. Drive and states have no unit.
    """

    model: MacroModel
    time: Array
    """Times in seconds, (S,). They include every time at which the drive may jump."""
    drive: Array
    """Drive b, (S, num_pre + num_post). At a jump it is the value after the jump."""
    pre: Array
    """Presynaptic activity x, (S, num_pre)."""
    post: Array
    """Postsynaptic activity y, (S, num_post)."""
    synapse: Array
    """Synapses s, (S, num_pre, num_post)."""
    short_term: Array
    """Short-term process p^s, (S, num_pre, num_post)."""
    long_term: Array
    """Long-term process p^l, (S, num_pre, num_post)."""


def derivative(model: MacroModel) -> Callable[[Array, Array], Array]:
    """Return the right-hand side of the equations of `MacroModel` [K, P].

    Returns:
        A function (state, drive) -> d state / dt, in 1/s. The state has the order of `Layout`; the
        drive has shape (num_pre + num_post,).
    """
    layout = Layout(model.num_pre, model.num_post)
    neurons, synapse = layout.neurons, layout.synapse
    short_term, long_term = layout.short_term, layout.long_term
    theta, phi, psi, g, kappa = (
        NONLINEARITIES[name].function for name in (model.theta, model.phi, model.psi, model.g, model.kappa)
    )
    T = model.coupling_matrix
    num_pre = model.num_pre
    grid = (model.num_pre, model.num_post)
    # Every equation has the form tau dz/dt = -decay z + input.
    decay, rate = np.empty(layout.size), np.empty(layout.size)
    for part, name in ((neurons, "neuron"), (synapse, "synapse"), (short_term, "short"), (long_term, "long")):
        decay[part] = getattr(model, f"decay_{name}")
        rate[part] = 1.0 / getattr(model, f"tau_{name}")

    def right_hand_side(state: Array, drive: Array) -> Array:
        pre, activity = state[:num_pre], theta(state[neurons])
        s, psi_short = state[synapse], psi(state[short_term])
        calcium = kappa(s)

        inputs = np.empty_like(state)
        inputs[neurons] = drive
        inputs[num_pre : neurons.stop] += phi(pre) @ g(s).reshape(grid)
        coincidence = np.multiply.outer(activity[:num_pre], activity[num_pre:])
        inputs[synapse] = coincidence.ravel() + psi_short
        inputs[short_term] = T @ psi_short + calcium + model.input_short
        inputs[long_term] = calcium
        return rate * (inputs - decay * state)

    return right_hand_side


def advance(
    model: MacroModel, state: Array, piece: Piece, times: Array | None = None, rtol: float = RTOL, atol: float = ATOL
) -> Array:
    """Solve the equations from the start of a piece to its end.

    Args:
        model: macro model.
        state: state at the start, in the order of `Layout`.
        piece: interval of time and its drive.
        times: times in seconds of the returned states; None means the end only.
        rtol: relative tolerance.
        atol: absolute tolerance.

    Returns:
        The states, shape (times, state).

    Raises:
        UserError: if the solution diverges or the solver fails.
    """
    from scipy.integrate import solve_ivp

    slope = derivative(model)
    fastest = min(
        model.tau_neuron / model.decay_neuron,
        model.tau_synapse / model.decay_synapse,
        model.tau_short / model.decay_short,
        model.tau_long / model.decay_long,
    )
    # A diverging solution overflows. The check below reports it instead of NumPy's warnings.
    with np.errstate(all="ignore"):
        solution = solve_ivp(
            lambda time, now: slope(now, piece.value(time)),
            (piece.start, piece.end),
            state,
            method="LSODA" if piece.end - piece.start > STIFF_RATIO * fastest else "DOP853",
            t_eval=[piece.end] if times is None else times,
            rtol=rtol,
            atol=atol,
        )
    if not solution.success or not np.isfinite(solution.y).all():
        raise UserError(
            f"the simulation diverges between {piece.start:g} s and {piece.end:g} s; replace "
            "unbounded functions ('relu', 'linear') by bounded ones ('tanh'), lower amplitude, or "
            "raise the decays"
        )
    return solution.y.T


def simulate(
    model: MacroModel,
    cycles: int = 16,
    drive: DriveLike = None,
    breakpoints: Sequence[float] = (),
    samples_per_cycle: int = 200,
    rtol: float = RTOL,
    atol: float = ATOL,
) -> Simulation:
    """Simulate from rest for `cycles` cycles of `model.cycle` seconds.

    The solver starts anew at each jump of the drive, because its steps would otherwise smooth the
    jump.

    Args:
        model: macro model.
        cycles: number of cycles, at least 1.
        drive: None for the model's train of cycles; a number for a constant drive of all neurons;
            an array of shape (samples,) or (samples, num_pre + num_post), each row of which lasts
            an equal part of the whole time; or a function from a time in seconds to a number or
            an array of shape (num_pre + num_post,).
        breakpoints: times in seconds at which a drive function jumps.
        samples_per_cycle: approximate number of evenly spaced times per cycle in the traces. The
            times of jumps are added to them.
        rtol: relative tolerance of the solver, above 0 and below 1.
        atol: absolute tolerance of the solver, above 0 and below 1.

    Returns:
        The traces.

    Raises:
        UserError: for a drive of the wrong shape or with a value that is not finite, counts below
            1, tolerances out of range, and a solution that diverges.
    """
    for name, count in (("cycles", cycles), ("samples_per_cycle", samples_per_cycle)):
        checked(name, count, Annotated[int, Range(1, 100_000)])
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if not 0 < tolerance < 1:
            raise UserError(f"{name} must be above 0 and below 1, not {tolerance!r}")
    layout = Layout(model.num_pre, model.num_post)
    state = np.zeros(layout.size)
    times, states, drives = [np.zeros(1)], [state[None]], []
    for piece in pieces(model, cycles, drive, breakpoints):
        steps = max(1, round((piece.end - piece.start) / model.cycle * samples_per_cycle))
        stops = np.linspace(piece.start, piece.end, steps + 1)
        piece_states = advance(model, state, piece, stops[1:], rtol, atol)
        # The value at a piece's end belongs to the next piece, which may begin with a jump.
        drives.append(np.array([piece.value(time) for time in stops[:-1]]))
        times.append(stops[1:])
        states.append(piece_states)
        state = piece_states[-1]
    drives.append(piece.value(piece.end)[None])
    trace = np.concatenate(states)
    grid = (len(trace), model.num_pre, model.num_post)
    return Simulation(
        model=model,
        time=np.concatenate(times),
        drive=np.concatenate(drives),
        pre=trace[:, : model.num_pre],
        post=trace[:, model.num_pre : layout.neurons.stop],
        synapse=trace[:, layout.synapse].reshape(grid),
        short_term=trace[:, layout.short_term].reshape(grid),
        long_term=trace[:, layout.long_term].reshape(grid),
    )
