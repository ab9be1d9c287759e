"""The macro model's equations, solved piece by piece between the times at which the drive jumps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np

from rmaat.astrocyte.drive import DriveLike, Piece, pieces
from rmaat.astrocyte.nonlinearity import NONLINEARITIES, Array
from rmaat.errors import UserError

if TYPE_CHECKING:
    from rmaat.astrocyte.model import MacroModel

RTOL = 1e-9
"""Relative tolerance of the solver."""
ATOL = 1e-13
"""Absolute tolerance of the solver; the states are of order 1."""
STIFF_RATIO = 200.0
"""A piece's length over the shortest time constant past which an implicit method is taken [C: there it is faster]."""


@dataclass(frozen=True)
class Layout:
    """Where each variable stands in the flat state vector (x, y, s, p^s, p^l)."""

    num_pre: int
    num_post: int

    @property
    def size(self) -> int:
        """Length of the state vector."""
        return self.num_pre + self.num_post + 3 * self.num_pre * self.num_post

    @property
    def neurons(self) -> slice:
        """All neurons, presynaptic first."""
        return slice(0, self.num_pre + self.num_post)

    @property
    def synapse(self) -> slice:
        """s, by row of presynaptic neurons."""
        return self._process(0)

    @property
    def short_term(self) -> slice:
        """p^s, in the synapses' order."""
        return self._process(1)

    @property
    def long_term(self) -> slice:
        """p^l, in the synapses' order."""
        return self._process(2)

    def _process(self, index: int) -> slice:
        start = self.num_pre + self.num_post + index * self.num_pre * self.num_post
        return slice(start, start + self.num_pre * self.num_post)


@dataclass(frozen=True)
class Simulation:
    """The traces of one simulation, S times in seconds from 0 to the end; the states have no unit."""

    model: MacroModel
    time: Array
    """(S,); holds every time at which the drive may jump."""
    drive: Array
    """b, (S, num_pre + num_post); at a jump the value after it."""
    pre: Array
    """x, (S, num_pre)."""
    post: Array
    """y, (S, num_post)."""
    synapse: Array
    """s, (S, num_pre, num_post)."""
    short_term: Array
    """p^s, (S, num_pre, num_post)."""
    long_term: Array
    """p^l, (S, num_pre, num_post)."""


def derivative(model: MacroModel) -> Callable[[Array, Array], Array]:
    """The right-hand side of the class docstring's equations: (state, drive) -> d state / dt.

    State as `Layout` has it, drive of shape (num_pre + num_post,).
    """
    at = Layout(model.num_pre, model.num_post)
    neurons, synapse, short_term, long_term = at.neurons, at.synapse, at.short_term, at.long_term
    theta, phi, psi, g, kappa = (
        NONLINEARITIES[name].function for name in (model.theta, model.phi, model.psi, model.g, model.kappa)
    )
    T = model.coupling_matrix
    num_pre = model.num_pre
    grid = (model.num_pre, model.num_post)
    decay, rate = np.empty(at.size), np.empty(at.size)
    for part, name in ((neurons, "neuron"), (synapse, "synapse"), (short_term, "short"), (long_term, "long")):
        decay[part] = getattr(model, f"decay_{name}")
        rate[part] = 1.0 / getattr(model, f"tau_{name}")

    def right_hand_side(state: Array, drive: Array) -> Array:
        pre, activity = state[:num_pre], theta(state[neurons])
        s, felt = state[synapse], psi(state[short_term])
        calcium = kappa(s)

        gain = np.empty_like(state)
        gain[neurons] = drive
        gain[num_pre : neurons.stop] += phi(pre) @ g(s).reshape(grid)
        gain[synapse] = np.multiply.outer(activity[:num_pre], activity[num_pre:]).ravel() + felt
        gain[short_term] = T @ felt + calcium + model.input_short
        gain[long_term] = calcium
        return rate * (gain - decay * state)

    return right_hand_side


def advance(
    model: MacroModel, state: Array, piece: Piece, times: Array | None = None, rtol: float = RTOL, atol: float = ATOL
) -> Array:
    """Solve from the start of a piece to its end; the states at `times`, or at the end only, shape (times, state).

    Raises `UserError` where the solution runs away or the solver gives up.
    """
    from scipy.integrate import solve_ivp

    slope = derivative(model)
    fastest = min(
        model.tau_neuron / model.decay_neuron,
        model.tau_synapse / model.decay_synapse,
        model.tau_short / model.decay_short,
        model.tau_long / model.decay_long,
    )
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
            f"the simulation runs away or stalls between {piece.start:g} s and {piece.end:g} s; with unbounded "
            "functions ('relu', 'linear') take bounded ones ('tanh'), lower amplitude, or raise the decays"
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

    `drive` is None (the model's train of cycles), a number (constant, on all neurons), an array of shape (samples,) or
    (samples, num_pre + num_post) whose rows are held for equal shares of the whole time, or a function of time in
    seconds that gives a number or (num_pre + num_post,); `breakpoints` are the times in seconds at which that function
    jumps. The solver starts anew at each jump, so that none is smoothed over. About `samples_per_cycle` evenly spaced
    times are kept for each cycle, and the times of all jumps.

    Raises `UserError` for a drive whose shape does not fit or that is not finite, counts below 1, tolerances not in
    (0, 1), and a solution that runs away.
    """
    for name, count in (("cycles", cycles), ("samples_per_cycle", samples_per_cycle)):
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
            raise UserError(f"{name} is a whole number of at least 1, not {count!r}")
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if not 0 < tolerance < 1:
            raise UserError(f"{name} is above 0 and below 1, not {tolerance!r}")
    at = Layout(model.num_pre, model.num_post)
    state = np.zeros(at.size)
    times, states, drives = [np.zeros(1)], [state[None]], []
    for piece in pieces(model, cycles, drive, breakpoints):
        steps = max(1, round((piece.end - piece.start) / model.cycle * samples_per_cycle))
        stops = np.linspace(piece.start, piece.end, steps + 1)
        found = advance(model, state, piece, stops[1:], rtol, atol)
        drives.append(np.array([piece.value(time) for time in stops[:-1]]))
        times.append(stops[1:])
        states.append(found)
        state = found[-1]
    drives.append(piece.value(piece.end)[None])
    trace = np.concatenate(states)
    grid = (len(trace), model.num_pre, model.num_post)
    return Simulation(
        model=model,
        time=np.concatenate(times),
        drive=np.concatenate(drives),
        pre=trace[:, : model.num_pre],
        post=trace[:, model.num_pre : at.neurons.stop],
        synapse=trace[:, at.synapse].reshape(grid),
        short_term=trace[:, at.short_term].reshape(grid),
        long_term=trace[:, at.long_term].reshape(grid),
    )
