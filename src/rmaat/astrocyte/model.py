"""The macro model: its equations, its parameters and the bound of its coupling."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Annotated, Any

import numpy as np

from rmaat.astrocyte.drive import DriveLike
from rmaat.astrocyte.nonlinearity import NONLINEARITIES, Array
from rmaat.astrocyte.simulate import Simulation, simulate
from rmaat.errors import UserError, did_you_mean
from rmaat.values import OneOf, Range, allows, check_values, kinds

Constant = Annotated[float, Range(1e-6, 1e6)]
Strength = Annotated[float, Range(0, 1e6)]
Neurons = Annotated[int, Range(1, 1000)]
Function = Annotated[str, OneOf(NONLINEARITIES.names())]

MOST_SYNAPSES = 2500
"""The coupling matrix has a row and a column for each synapse."""

Position = tuple[float, ...]


class LatchWarning(UserWarning):
    """Warning that the short-term process stays high after the drive has ended."""


@dataclass(frozen=True)
class MacroModel:
    r"""The neuron-astrocyte macro model: neurons, synapses, and two processes of the astrocyte.

    It has presynaptic neurons x_i, postsynaptic neurons y_j and one synapse s_ij per pair. Each
    synapse has a short-term process p^s_ij and a long-term process p^l_ij.

    $$\tau_n \dot x_i = -\lambda x_i + b(t) \qquad
      \tau_n \dot y_j = -\lambda y_j + \sum_i g(s_{ij})\,\phi(x_i) + b(t)$$
    $$\tau_s \dot s_{ij} = -\beta s_{ij} + \theta(x_i)\,\theta(y_j) + \psi(p^s_{ij})$$
    $$\tau_p^s \dot p^s_{ij} = -\gamma^s p^s_{ij} + \sum_{kl} T_{ijkl}\,\psi(p^s_{kl}) + \kappa(s_{ij}) + d$$
    $$\tau_p^l \dot p^l_{ij} = -\gamma^l p^l_{ij} + \kappa(s_{ij})$$

    The equation of the neurons is from [K]. Those of the synapse and of the two processes are from
    [P]; [K] has the one of the short-term process as well. Time is in seconds. The states have no
    unit and start at 0. No constant is published, so every default is [C]. With the defaults, the
    short-term process falls between cycles and the increments of the long-term process decrease.

    The coupling falls with the distance of two synapses [P: the term; C: its form],

    $$T_{ijkl} = \texttt{coupling} \cdot E_{ijkl} / \max_{ij} \sum_{kl} E_{ijkl}, \qquad
      E_{ijkl} = e^{-|r_{ij} - r_{kl}| / \texttt{distance\_scale}}.$$

    All rows have one divisor. With a divisor for each row, all p^s would be equal.

    The drive b is a train of cycles [C]: `amplitude` on all neurons during the first part of each
    cycle, and 0 in the rest.

    Sources: [P] RMAAT, arXiv 2601.00426; [K] Kozachkov et al., arXiv 2311.08135; [C] this project's
    choice. `docs/explanation/astrocyte.md` explains them.

    A model is frozen and hashable. A bounded psi with a coupling above `coupling_bound` causes a
    `LatchWarning`.

    Raises:
        UserError: for a value out of its range, and for an unbounded psi with a coupling above
            `coupling_bound`.
    """

    tau_neuron: Constant = 0.1
    """Time constant tau_n of the neurons in seconds, > 0 [K]."""
    tau_synapse: Constant = 1.0
    """Time constant tau_s of the synapses in seconds, > 0 [P]."""
    tau_short: Constant = 2.0
    """Time constant tau_p^s of the short-term process in seconds, > 0 [P]."""
    tau_long: Constant = 30.0
    """Time constant tau_p^l of the long-term process in seconds, > 0 [P]."""
    decay_neuron: Constant = 1.0
    """Leak lambda of the neurons, no unit, > 0 [K]."""
    decay_synapse: Constant = 1.0
    """Leak beta of the synapses, no unit, > 0 [P]."""
    decay_short: Constant = 2.0
    """Leak gamma^s of the short-term process, no unit, > 0 [P]. At 1 the process stays high
    without drive, with the other parameters unchanged."""
    decay_long: Constant = 1.0
    """Leak gamma^l of the long-term process, no unit, > 0 [P]."""
    coupling: Strength = 0.3
    """Largest row sum of the coupling matrix T, no unit, >= 0 [C]."""
    distance_scale: Constant = 1.0
    """Distance over which the coupling falls by a factor of e, in units of `positions`, > 0 [C]."""
    cycle: Constant = 10.0
    """Length tau_cycle of a plasticity cycle in seconds, > 0 [P: the cycle; C: its length]."""
    duty: Annotated[float, Range(most=1, above=0)] = 0.5
    """Fraction of each cycle during which the drive is on, no unit, > 0 and <= 1 [C]."""
    amplitude: Strength = 1.0
    """Drive b of every neuron while it is on, no unit, >= 0 [C]."""
    input_short: Annotated[float, Range(-1e6, 1e6)] = 0.0
    """Input d to every short-term process, no unit, finite [K: the term; C: its value]."""
    num_pre: Neurons = 3
    """Number of presynaptic neurons, >= 1 [P]."""
    num_post: Neurons = 3
    """Number of postsynaptic neurons, >= 1 [P]."""
    theta: Function = "tanh"
    """Function theta of neurons' activity that drives synapses [C]: tanh, rectified_tanh,
    rectified_hyperbola, relu or linear."""
    phi: Function = "tanh"
    """Function phi from presynaptic activity to output, one of those of theta [C]."""
    psi: Function = "tanh"
    """Function psi of the short-term process that drives synapses, one of those of theta [C].
    It drives the process's own synapse, and through T the short-term processes of all synapses."""
    g: Function = "tanh"
    """Function g from a synapse to its weight, one of those of theta [C]."""
    kappa: Function = "rectified_tanh"
    """Function kappa of the synapse that drives both processes, one of those of theta [C]."""
    positions: tuple[Position, ...] | None = None
    """Position of each synapse, in any dimension; null means the grid points (i, j) [C]. The unit
    is arbitrary. The order is (0, 0), (0, 1) ..., row by row of presynaptic neurons."""

    def __post_init__(self) -> None:
        check_values(self, MacroModel)
        if self.num_synapses > MOST_SYNAPSES:
            raise UserError(
                f"num_pre {self.num_pre} x num_post {self.num_post} are {self.num_synapses:,} synapses; "
                f"at most {MOST_SYNAPSES:,} can be simulated"
            )
        if self.positions is not None:
            object.__setattr__(self, "positions", self._points())
        self._check_latch()

    def _points(self) -> tuple[Position, ...]:
        try:
            points = np.asarray(self.positions, dtype=np.float64)
        except (TypeError, ValueError):
            message = "positions must be one list of coordinates per synapse, all of one length"
            raise UserError(message) from None
        if points.ndim != 2 or points.shape[0] != self.num_synapses or points.shape[1] < 1:
            raise UserError(
                f"positions has shape {points.shape}; it must have shape ({self.num_synapses}, "
                f"dimensions), because {self.num_pre} x {self.num_post} neurons have "
                f"{self.num_synapses} synapses"
            )
        if not np.isfinite(points).all():
            raise UserError("positions contains a coordinate that is not a finite number")
        return tuple(tuple(point) for point in points.tolist())

    def _check_latch(self) -> None:
        # The spectral radius of T is at most its largest row sum, which is `coupling`. A coupling
        # below the margin therefore needs no eigenvalues.
        if self.coupling < self._latch_margin or self.coupling < self.coupling_bound:
            return
        bound = max(self.coupling_bound, 0.0)
        reason = (
            f"coupling {self.coupling:g} is not below the bound {bound:.4g}, "
            "so the short-term process stays high without drive; lower coupling, or raise "
            "decay_short or decay_synapse"
        )
        if not NONLINEARITIES[self.psi].bounded:
            raise UserError(f"psi '{self.psi}' is unbounded and {reason}, or take psi 'tanh'")
        warnings.warn(reason, LatchWarning, stacklevel=4)

    @property
    def num_synapses(self) -> int:
        """Number of synapses, one for each pair of neurons."""
        return self.num_pre * self.num_post

    @property
    def num_neurons(self) -> int:
        """Number of neurons, presynaptic and postsynaptic."""
        return self.num_pre + self.num_post

    @property
    def decay_per_cycle(self) -> float:
        """Decay c = gamma^l tau_cycle / tau_p^l per cycle, no unit [P].

        Without input, p^l is multiplied by e^-c in each cycle.
        """
        return self.decay_long * self.cycle / self.tau_long

    @cached_property
    def points(self) -> Array:
        """Positions r_ij of the synapses, shape (synapses, dimensions), read-only [C]."""
        if self.positions is None:
            grid = np.indices((self.num_pre, self.num_post), dtype=np.float64)
            points = grid.reshape(2, -1).T.copy()
        else:
            points = np.array(self.positions)
        points.flags.writeable = False
        return points

    @cached_property
    def coupling_matrix(self) -> Array:
        """Coupling T of the class docstring [C], without unit, symmetric, read-only.

        The pairs ij and kl are flattened: shape (synapses, synapses).
        """
        matrix = self.coupling * self._relative_coupling()
        matrix.flags.writeable = False
        return matrix

    def _relative_coupling(self) -> Array:
        """Return U = T / coupling, which is E divided by its largest row sum [C]."""
        from scipy.spatial.distance import cdist

        weights: Array = np.exp(-cdist(self.points, self.points) / self.distance_scale)
        return weights / weights.sum(axis=1).max()

    @property
    def _latch_margin(self) -> float:
        """Bound of the spectral radius of T: gamma^s / psi' - kappa' / beta, no unit [C]."""
        psi, kappa = NONLINEARITIES[self.psi], NONLINEARITIES[self.kappa]
        return self.decay_short / psi.gain - kappa.gain / self.decay_synapse

    @property
    def coupling_bound(self) -> float:
        r"""Smallest coupling with which the short-term process stays high without drive, no unit.

        A bound of 0 or less means that it stays high with every coupling.

        Without drive $\theta(x_i) = 0$. Because $\psi(p) \le \psi' p$ and
        $\kappa(s) \le \kappa' s$, a linear system bounds the pair (s, p^s). The matrix of that
        system has no negative entry off its diagonal. The system decays if and only if
        $\rho(T)\,\psi' + \kappa'\psi'/\beta < \gamma^s$, with $\rho$ the spectral radius. As T is
        `coupling` times U,

        $$\texttt{coupling} < \frac{1}{\rho(U)} \left(\frac{\gamma^s}{\psi'} - \frac{\kappa'}{\beta}\right).$$

        The gains $\psi'$ and $\kappa'$ are slopes at 0, so the rest state is unstable above the
        bound [C: derived here].
        """
        return self._latch_margin / float(np.linalg.eigvalsh(self._relative_coupling())[-1])

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain JSON values, from which `from_dict` makes an equal model."""
        values = asdict(self)
        if self.positions is not None:
            values["positions"] = [list(point) for point in self.positions]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MacroModel":
        """Return the model with these fields and defaults for the others.

        Raises:
            UserError: for an unknown name, and as the class does.
        """
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise UserError(f"unknown parameter '{name}' of the macro model; {did_you_mean(str(name), names)}")
        return cls(**values)

    def changed(self, name: str, value: float) -> "MacroModel":
        """Return the model with one number changed.

        Raises:
            UserError: as the class does.
        """
        return MacroModel.from_dict({**self.to_dict(), name: value})

    def simulate(self, cycles: int = 16, drive: DriveLike = None, **options: Any) -> Simulation:
        """Return the traces over some cycles, as `rmaat.astrocyte.simulate.simulate` does."""
        return simulate(self, cycles, drive, **options)


NUMBER_FIELDS = tuple(name for name, kind in kinds(MacroModel).items() if allows(kind, float))
"""The real-valued fields, which a sweep may vary."""
