"""The macro model's parameters: what they mean, what is allowed, and the bound past which the short term latches."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np

from rmaat.astrocyte.drive import DriveLike
from rmaat.astrocyte.nonlinearity import NONLINEARITIES, Array
from rmaat.astrocyte.simulate import Simulation, simulate
from rmaat.errors import UserError, did_you_mean

FUNCTION_FIELDS = ("theta", "phi", "psi", "g", "kappa")
COUNT_FIELDS = ("num_pre", "num_post")
POSITIVE_FIELDS = (
    "tau_neuron",
    "tau_synapse",
    "tau_short",
    "tau_long",
    "decay_neuron",
    "decay_synapse",
    "decay_short",
    "decay_long",
    "distance_scale",
    "cycle",
)
NON_NEGATIVE_FIELDS = ("coupling", "amplitude")
NUMBER_FIELDS = (*POSITIVE_FIELDS, *NON_NEGATIVE_FIELDS, "duty", "input_short")
"""The real-valued fields: those that a sweep may vary."""

Position = tuple[float, ...]


class LatchWarning(UserWarning):
    """The parameters let the short-term process stay up after the drive has gone."""


@dataclass(frozen=True)
class MacroModel:
    r"""The neuron-astrocyte macro model: presynaptic neurons x_i, postsynaptic neurons y_j, one synapse s_ij per pair.

    $$\tau_n \dot x_i = -\lambda x_i + b(t) \qquad
      \tau_n \dot y_j = -\lambda y_j + \sum_i g(s_{ij})\,\phi(x_i) + b(t)$$
    $$\tau_s \dot s_{ij} = -\beta s_{ij} + \theta(x_i)\,\theta(y_j) + \psi(p^s_{ij})$$
    $$\tau_p^s \dot p^s_{ij} = -\gamma^s p^s_{ij} + \sum_{kl} T_{ijkl}\,\psi(p^s_{kl}) + \kappa(s_{ij}) + d$$
    $$\tau_p^l \dot p^l_{ij} = -\gamma^l p^l_{ij} + \kappa(s_{ij})$$

    The neurons' equation is from [K], the synapse's and the two processes' from [P] (sources as in
    `docs/explanation/astrocyte.md`: [P] RMAAT, arXiv 2601.00426; [K] Kozachkov et al., arXiv
    2311.08135; [C] this project's choice). No constant is published: every default is [C], chosen
    so that the short term falls between cycles and the increments of the long term decrease. All
    states start at 0. The coupling falls with the distance of two synapses,

    $$T_{ijkl} = \texttt{coupling} \cdot E_{ijkl} / \max_{ij} \sum_{kl} E_{ijkl}, \qquad
      E_{ijkl} = e^{-|r_{ij} - r_{kl}| / \texttt{distance\_scale}}$$

    (one divisor for all rows: with a divisor for each row all p^s would be equal). The drive b is a train of cycles:
    `amplitude` on all neurons in the first part of each cycle, 0 in the rest.

    Frozen and hashable. Raises `UserError` for a value out of its range, and for an unbounded psi whose coupling is
    past `coupling_bound`; a bounded psi past it warns with `LatchWarning`.
    """

    tau_neuron: float = 0.1
    """Time constant tau_n of the neurons in seconds, > 0 [K]."""
    tau_synapse: float = 1.0
    """Time constant tau_s of the synapses in seconds, > 0 [P]."""
    tau_short: float = 2.0
    """Time constant tau_p^s of the short-term process in seconds, > 0 [P]."""
    tau_long: float = 30.0
    """Time constant tau_p^l of the long-term process in seconds, > 0 [P]."""
    decay_neuron: float = 1.0
    """Leak lambda of the neurons, no unit, > 0 [K]."""
    decay_synapse: float = 1.0
    """Leak beta of the synapses, no unit, > 0 [P]."""
    decay_short: float = 2.0
    """Leak gamma^s of the short-term process, no unit, > 0 [P]; at 1 the short term latches."""
    decay_long: float = 1.0
    """Leak gamma^l of the long-term process, no unit, > 0 [P]."""
    coupling: float = 0.3
    """Largest summed coupling of one synapse to all synapses (the largest row sum of T), no unit, >= 0 [C]."""
    distance_scale: float = 1.0
    """Distance over which the coupling falls by a factor e, in units of `positions`, > 0 [C]."""
    cycle: float = 10.0
    """Length tau_cycle of one cycle of short-term plasticity in seconds, > 0 [P: the cycle; C: its length]."""
    duty: float = 0.5
    """Part of each cycle in which the drive is on, no unit, > 0 and <= 1 (1: a constant drive) [C]."""
    amplitude: float = 1.0
    """Drive b of every neuron while it is on, no unit, >= 0 [C]."""
    input_short: float = 0.0
    """Input d to the short-term process of every synapse, no unit, any finite number [K: the term; C: its value]."""
    num_pre: int = 3
    """Number of presynaptic neurons, >= 1 [P]."""
    num_post: int = 3
    """Number of postsynaptic neurons, >= 1 [P]."""
    theta: str = "tanh"
    """Function theta of both neurons' activity that writes the synapse, a name in `NONLINEARITIES` [C]. The names
    are tanh, rectified_tanh, rectified_hyperbola, relu and linear."""
    phi: str = "tanh"
    """Function phi of a presynaptic neuron's activity, its output, a name in `NONLINEARITIES` [C]."""
    psi: str = "tanh"
    """Function psi of the short-term process, felt by synapse and neighbours, a name in `NONLINEARITIES` [C]."""
    g: str = "tanh"
    """Function g of the synapse, the weight that the postsynaptic neuron sees, a name in `NONLINEARITIES` [C]."""
    kappa: str = "rectified_tanh"
    """Function kappa of the synapse that drives both processes, a name in `NONLINEARITIES` [C]."""
    positions: tuple[Position, ...] | None = None
    """Place of each synapse, a point of any dimension; null means grid point (i, j) for synapse (i, j) [C]. The
    order is (0, 0), (0, 1) ... by row of presynaptic neurons."""

    def __post_init__(self) -> None:
        for name in NUMBER_FIELDS:
            object.__setattr__(self, name, self._number(name))
        for name in COUNT_FIELDS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise UserError(f"{name} is a number of neurons, a whole number of at least 1, not {value!r}")
            object.__setattr__(self, name, int(value))
        for name in FUNCTION_FIELDS:
            try:
                NONLINEARITIES[getattr(self, name)]
            except UserError as mistake:
                raise UserError(f"{name}: {mistake}") from None
        if self.positions is not None:
            object.__setattr__(self, "positions", self._points())
        self._check_latch()

    def _number(self, name: str) -> float:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
            raise UserError(f"{name} is a finite number, not {value!r}")
        if name in POSITIVE_FIELDS and value <= 0:
            raise UserError(f"{name} is above 0, not {value!r}")
        if name in NON_NEGATIVE_FIELDS and value < 0:
            raise UserError(f"{name} is at least 0, not {value!r}")
        if name == "duty" and not 0 < value <= 1:
            raise UserError(f"duty, the driven part of a cycle, is above 0 and at most 1, not {value!r}")
        return float(value)

    def _points(self) -> tuple[Position, ...]:
        try:
            points = np.asarray(self.positions, dtype=np.float64)
        except (TypeError, ValueError):
            raise UserError("positions is one list of coordinates for each synapse, all of one length") from None
        if points.ndim != 2 or points.shape[0] != self.num_synapses or points.shape[1] < 1:
            raise UserError(
                f"positions has shape {points.shape}; {self.num_pre} x {self.num_post} neurons have "
                f"{self.num_synapses} synapses, so ({self.num_synapses}, dimensions) is needed"
            )
        if not np.isfinite(points).all():
            raise UserError("positions holds a coordinate that is not a finite number")
        return tuple(tuple(point) for point in points.tolist())

    def _check_latch(self) -> None:
        # The spectral radius is at most the largest row sum, which is `coupling`: most models need no eigenvalues.
        room = self._latch_room
        if self.coupling < room or self.coupling < self.coupling_bound:
            return
        reason = (
            f"coupling {self.coupling:g} is past {max(self.coupling_bound, 0.0):.4g}, the bound at which the "
            "short-term process stays up without drive; lower coupling, or raise decay_short or decay_synapse"
        )
        if not NONLINEARITIES[self.psi].bounded:
            raise UserError(f"psi '{self.psi}' is unbounded and {reason}, or take a bounded psi such as 'tanh'")
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
        """c = gamma^l tau_cycle / tau_p^l [P]: without input p^l falls by e^-c in a cycle."""
        return self.decay_long * self.cycle / self.tau_long

    @cached_property
    def points(self) -> Array:
        """The synapses' positions, shape (synapses, dimensions), read-only."""
        if self.positions is None:
            grid = np.indices((self.num_pre, self.num_post), dtype=np.float64)
            points = grid.reshape(2, -1).T.copy()
        else:
            points = np.array(self.positions)
        points.flags.writeable = False
        return points

    @cached_property
    def coupling_matrix(self) -> Array:
        """T with pairs ij and kl flattened, shape (synapses, synapses), symmetric, read-only; see the class."""
        matrix = self.coupling * self._falloff()
        matrix.flags.writeable = False
        return matrix

    def _falloff(self) -> Array:
        """E over its largest row sum."""
        from scipy.spatial.distance import cdist

        falloff: Array = np.exp(-cdist(self.points, self.points) / self.distance_scale)
        return falloff / falloff.sum(axis=1).max()

    @property
    def _latch_room(self) -> float:
        psi, kappa = NONLINEARITIES[self.psi], NONLINEARITIES[self.kappa]
        return self.decay_short / psi.gain - kappa.gain / self.decay_synapse

    @property
    def coupling_bound(self) -> float:
        r"""The coupling from which the short-term process stays up without drive; at or below 0: every coupling does.

        Without drive $\theta(x_i) = 0$, and with $\psi(p) \le \psi' p$, $\kappa(s) \le \kappa' s$ the pair (s, p^s) is
        bounded by a linear system whose matrix has no negative entry off its diagonal. It decays if and only if
        $\rho(T)\,\psi' + \kappa'\psi'/\beta < \gamma^s$, with $\rho$ the spectral radius. As T is `coupling` times U,

        $$\texttt{coupling} < \frac{1}{\rho(U)} \left(\frac{\gamma^s}{\psi'} - \frac{\kappa'}{\beta}\right).$$

        The primed gains are slopes at 0, so past the bound the rest state is unstable [C: derived here].
        """
        return self._latch_room / float(np.linalg.eigvalsh(self._falloff())[-1])

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values; `from_dict` gives the same model back."""
        plain = asdict(self)
        if self.positions is not None:
            plain["positions"] = [list(point) for point in self.positions]
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MacroModel":
        """The model of these fields, the rest at defaults; raises `UserError` for an unknown name or a bad value."""
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise UserError(f"unknown parameter '{name}' of the macro model; {did_you_mean(str(name), names)}")
        return cls(**values)

    def changed(self, name: str, value: float) -> "MacroModel":
        """The same model with one number changed; raises `UserError` as the class does."""
        return MacroModel.from_dict({**self.to_dict(), name: value})

    def simulate(self, cycles: int = 16, drive: DriveLike = None, **options: Any) -> Simulation:
        """The traces over some cycles: `rmaat.astrocyte.simulate.simulate(self, cycles, drive, **options)`."""
        return simulate(self, cycles, drive, **options)
