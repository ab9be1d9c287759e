r"""What the long-term process gains in each cycle, to any number of cycles, without differences of a saturated p^l.

p^l is linear once kappa(s) is given. With q_t the gain of cycle t from p^l = 0 and c = gamma^l tau_cycle / tau_p^l,

$$p^l_t = e^{-c} p^l_{t-1} + q_t \quad\Rightarrow\quad
  \Delta p_{t+1} = e^{-c} \Delta p_t + (q_{t+1} - q_t), \quad \Delta p_1 = q_1,$$

all averaged over synapses. Each cycle is simulated from p^l = 0, which gives q_t itself. The other states approach a
periodic cycle; once q_t and they repeat to within the solver's accuracy, the increments are geometric: Dp falls by e^-c
in each further cycle, exactly.
"""

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rmaat.astrocyte.drive import cycle_pieces
from rmaat.astrocyte.model import LatchWarning, MacroModel
from rmaat.astrocyte.nonlinearity import Array
from rmaat.astrocyte.simulate import ATOL, RTOL, Layout, advance
from rmaat.errors import UserError

PERIODIC = 10.0
"""A cycle repeats the last one when the two differ by less than this many relative tolerances."""
LEAST_GAIN = 1e-6
"""Smallest gain of the first cycle; below it the absolute tolerance shows in the factors."""
MAX_CYCLES = 400
"""Cycles after which a model that has not become periodic is refused."""
DECAY_RANGE = (1e-12, 1e6)
"""Allowed c: below it e^-c and 1 are too near for a strict decrease in float64, above it nothing is left to share."""


@dataclass(frozen=True)
class Increments:
    """The increments Dp_t of the long-term process, averaged over synapses: a simulated head, then a geometric tail."""

    head: tuple[float, ...]
    """Dp_1 ... Dp_n, simulated; no unit."""
    decay: float
    """c: for t >= n, Dp_{t+1} = e^-c Dp_t."""

    def log(self, total: int) -> Array:
        """log Dp_1 ... log Dp_total, shape (total,); finite for every total."""
        last = len(self.head)
        steps = np.arange(1.0, total + 1)
        simulated = np.log(self.head)[np.minimum(np.arange(total), last - 1)]
        return simulated - self.decay * np.maximum(steps - last, 0.0)

    def factors(self, total: int) -> Array:
        """Dp_1 ... Dp_total over their sum, shape (total,); in float64's normal range as long as possible."""
        logs = self.log(total)
        shares: Array = np.exp(logs - logs[0])
        return shares / shares.sum()

    @property
    def log_sum(self) -> float:
        """log of the sum over all cycles to infinity, which is log of the plateau of p^l."""
        return math.log(sum(self.head) + self.head[-1] * math.exp(-self.decay) / -math.expm1(-self.decay))


def checked_decay(model: MacroModel) -> float:
    """c of a model; raises `UserError` where it is outside `DECAY_RANGE`."""
    low, high = DECAY_RANGE
    decay = model.decay_per_cycle
    if not low <= decay <= high:
        raise UserError(
            f"decay_long * cycle / tau_long is {decay:g}, the fall of the long term in one cycle; "
            f"retention factors need it from {low:g} to {high:g}"
        )
    return decay


def simulate_increments(model: MacroModel, rtol: float = RTOL, max_cycles: int = MAX_CYCLES) -> Increments:
    """Simulate cycles of the model's train until they repeat; the absolute tolerance goes with `rtol`.

    Stops early at an increment that is not below the one before: such a model has no retention factors and
    `retention_increments` refuses it. Raises `UserError` where nothing reaches the long term, where the cycles do not
    become periodic, for c outside `DECAY_RANGE`, and where the solution runs away.
    """
    decay = checked_decay(model)
    atol = rtol * ATOL / RTOL
    at = Layout(model.num_pre, model.num_post)
    state = np.zeros(at.size)
    head: list[float] = []
    gained_before = np.zeros(model.num_synapses)
    for index in range(max_cycles):
        before = state.copy()
        for piece in cycle_pieces(model, index):
            state = advance(model, state, piece, rtol=rtol, atol=atol)[-1]
        gained = state[at.long_term].copy()
        state[at.long_term] = 0.0
        if index == 0 and gained.mean() < LEAST_GAIN:
            raise UserError(
                f"the long term gains only {gained.mean():.2g} in the first cycle, and {LEAST_GAIN:g} is the least "
                "that can be shared out accurately; raise amplitude or duty, or bring cycle and time constants nearer"
            )
        allowed = PERIODIC * rtol
        repeats = np.abs(gained - gained_before).max() < allowed * gained.max() + PERIODIC * atol
        still = np.abs(state - before).max() < allowed * max(1.0, np.abs(state).max())
        if repeats and (still or head[-1] < allowed * sum(head)):
            return Increments(tuple(head), decay)
        # What is within the solver's error is no change: late in the head it would drown the gain itself.
        change = 0.0 if repeats else float(gained.mean() - gained_before.mean())
        head.append(math.exp(-decay) * head[-1] + change if head else change)
        if not decreases(head):
            return Increments(tuple(head), decay)
        gained_before = gained
    raise UserError(
        f"the cycles do not become periodic within {max_cycles}, so the long term's gains cannot be told; "
        f"coupling {model.coupling:g} is perhaps too near its bound {model.coupling_bound:.4g}, or a time constant of "
        "synapse or short term is many cycles long"
    )


def decreases(head: tuple[float, ...] | list[float]) -> bool:
    """Whether the last increment is above 0 and below the one before it."""
    return head[-1] > 0 and (len(head) == 1 or head[-1] < head[-2])


@lru_cache(maxsize=128)
def retention_increments(model: MacroModel) -> Increments:
    """The increments of a model, simulated once per model; strictly decreasing.

    Raises `UserError` as `simulate_increments` does, and where the increments do not decrease, with the nearest
    parameter that mends it.
    """
    found = simulate_increments(model)
    if decreases(found.head):
        return found
    cycle = len(found.head)
    raise UserError(
        f"the long term's gain does not fall in cycle {cycle} ({found.head[-2]:.4g}, then {found.head[-1]:.4g}), "
        "so the retention factors would not decrease: the drive of p^l builds up faster than p^l saturates; "
        f"{remedy(model)}"
    )


REMEDIES = {
    "tau_long": -1,
    "cycle": 1,
    "tau_synapse": -1,
    "tau_short": -1,
    "tau_neuron": -1,
    "decay_short": 1,
    "coupling": -1,
}
"""What can mend increments that do not decrease, and whether by more (1) or less (-1): the drive of p^l must settle
within the first cycle, or p^l must saturate sooner."""
LADDER = (1.05, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Factors tried in turn, for all remedies, before the first that mends is narrowed down."""
QUICK_RTOL = 1e-6
"""Accuracy enough for the search; what is found is tried in full."""


def remedy(model: MacroModel) -> str:
    """A clause naming the smallest changes of one parameter each that make the increments decrease, nearest first."""
    for failed, factor in zip((1.0, *LADDER), LADDER, strict=False):
        mended = [name for name in REMEDIES if _mends(model, name, factor, QUICK_RTOL) and _mends(model, name, factor)]
        if mended:
            factors = {name: _narrowed(model, name, failed, factor) for name in mended}
            changes = [
                f"{name} {_changed(model, name, factors[name]):g} (now {getattr(model, name):g})"
                for name in sorted(factors, key=factors.__getitem__)
            ]
            return f"the nearest change that mends it is {', or '.join(changes)}"
    return f"no change of one of {', '.join(REMEDIES)} by a factor of {LADDER[-1]:g} mends it"


def _changed(model: MacroModel, name: str, factor: float) -> float:
    """The parameter changed by the factor, to three digits, rounded away from where it is now."""
    value = getattr(model, name) * factor ** REMEDIES[name]
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    digits = math.ceil(value / unit - 1e-9) if REMEDIES[name] > 0 else math.floor(value / unit + 1e-9)
    return float(f"{digits * unit:.3g}")


def _mends(model: MacroModel, name: str, factor: float, rtol: float = RTOL) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatchWarning)
        try:
            changed = model.changed(name, _changed(model, name, factor))
            return decreases(simulate_increments(changed, rtol).head)
        except UserError:
            return False


def _narrowed(model: MacroModel, name: str, failed: float, mended: float) -> float:
    """The factor at which the remedy begins to mend, to 0.2%, by bisection of its logarithm; itself mending."""
    low, high = failed, mended
    while high / low > 1.002:
        middle = math.sqrt(low * high)
        if _mends(model, name, middle, QUICK_RTOL):
            high = middle
        else:
            low = middle
    return high if _mends(model, name, high) else mended
