r"""Increments Dp_t of the long-term process: its gain in each cycle, for any number of cycles.

The direct difference p^l_t - p^l_{t-1} loses all digits once p^l saturates. This module avoids that
difference. p^l obeys a linear equation with the input kappa(s) [P]. Let q_t be the gain of cycle t
if p^l starts the cycle at 0, and let c = gamma^l tau_cycle / tau_p^l. Then [C: derived here]

$$p^l_t = e^{-c} p^l_{t-1} + q_t \quad\Rightarrow\quad
  \Delta p_{t+1} = e^{-c} \Delta p_t + (q_{t+1} - q_t), \quad \Delta p_1 = q_1.$$

All quantities are averaged over synapses and have no unit. Each cycle is simulated from p^l = 0,
which gives q_t. The other states approach a periodic cycle. Once they and q_t repeat to within the
solver's accuracy, Dp_{t+1} = e^-c Dp_t holds exactly.

Sources: [P] RMAAT, arXiv 2601.00426; [C] this project's choice.
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
"""Largest difference of two cycles that count as equal, in relative tolerances [C]."""
LEAST_GAIN = 1e-6
"""Smallest allowed gain of the first cycle, no unit [C]. Below it the solver's absolute tolerance
would show in the factors."""
MAX_CYCLES = 400
"""Number of cycles within which a model must become periodic [C]."""
DECAY_RANGE = (1e-12, 1e6)
"""Allowed c, no unit [C]. Below the range, float64 cannot distinguish e^-c from 1, so the factors
would not decrease strictly. Above it, e^-c underflows and only the first factor is not 0."""


@dataclass(frozen=True)
class Increments:
    """Increments Dp_t, averaged over synapses, as a simulated head and a geometric tail."""

    head: tuple[float, ...]
    """The simulated increments Dp_1 ... Dp_n, no unit."""
    decay: float
    """Decay c of the tail, no unit: Dp_{t+1} = e^-c Dp_t for t >= n."""

    def log(self, total: int) -> Array:
        """Return log Dp_1 ... log Dp_total, shape (total,); finite for every total."""
        last = len(self.head)
        steps = np.arange(1.0, total + 1)
        simulated = np.log(self.head)[np.minimum(np.arange(total), last - 1)]
        return simulated - self.decay * np.maximum(steps - last, 0.0)

    def factors(self, total: int) -> Array:
        """Return RF(t, T) = Dp_t / (Dp_1 + ... + Dp_T) [P] for T = total, shape (total,)."""
        logs = self.log(total)
        # Relative to Dp_1, the increments underflow as late as possible.
        shares: Array = np.exp(logs - logs[0])
        return shares / shares.sum()

    @property
    def log_sum(self) -> float:
        """Logarithm of Dp_1 + Dp_2 + ..., the plateau of p^l at cycle ends [C: derived here].

        The tail is a geometric series: Dp_{n+1} + Dp_{n+2} + ... = Dp_n e^-c / (1 - e^-c).
        """
        return math.log(sum(self.head) + self.head[-1] * math.exp(-self.decay) / -math.expm1(-self.decay))


def checked_decay(model: MacroModel) -> float:
    """Return c of a model, no unit.

    Raises:
        UserError: if c is outside `DECAY_RANGE`.
    """
    low, high = DECAY_RANGE
    decay = model.decay_per_cycle
    if not low <= decay <= high:
        raise UserError(
            f"decay_long * cycle / tau_long, the decay of the long-term process per cycle, is "
            f"{decay:g}; retention factors need a value from {low:g} to {high:g}"
        )
    return decay


def simulate_increments(model: MacroModel, rtol: float = RTOL, max_cycles: int = MAX_CYCLES) -> Increments:
    """Simulate cycles of the model's train until they repeat, and return the increments.

    The simulation stops early at an increment that is not below the previous one. Such a model has
    no retention factors, and `retention_increments` raises an error for it.

    Args:
        model: macro model.
        rtol: relative tolerance of the solver; the absolute tolerance is scaled with it.
        max_cycles: number of cycles within which the model must become periodic.

    Raises:
        UserError: if the first gain is below `LEAST_GAIN`, if the cycles do not become periodic,
            if c is outside `DECAY_RANGE`, and if the solution diverges.
    """
    decay = checked_decay(model)
    atol = rtol * ATOL / RTOL
    layout = Layout(model.num_pre, model.num_post)
    state = np.zeros(layout.size)
    head: list[float] = []
    previous_gain = np.zeros(model.num_synapses)
    for index in range(max_cycles):
        start_state = state.copy()
        for piece in cycle_pieces(model, index):
            state = advance(model, state, piece, rtol=rtol, atol=atol)[-1]
        # q_t: p^l started this cycle at 0, and starts the next one at 0 again.
        gain = state[layout.long_term].copy()
        state[layout.long_term] = 0.0
        if index == 0 and gain.mean() < LEAST_GAIN:
            raise UserError(
                f"the long-term process gains only {gain.mean():.2g} in the first cycle; accurate "
                f"retention factors need at least {LEAST_GAIN:g}; raise amplitude or duty, or "
                "choose a cycle closer to the time constants"
            )
        tolerance = PERIODIC * rtol
        gain_repeats = np.abs(gain - previous_gain).max() < tolerance * gain.max() + PERIODIC * atol
        drift = np.abs(state - start_state).max()
        states_repeat = drift < tolerance * max(1.0, np.abs(state).max())
        # A slow state may still drift. It no longer matters if the increments left are negligible.
        if gain_repeats and (states_repeat or head[-1] < tolerance * sum(head)):
            return Increments(tuple(head), decay)
        # A change within the solver's error counts as 0. Late in the head that error would be
        # larger than the increment itself.
        change = 0.0 if gain_repeats else float(gain.mean() - previous_gain.mean())
        head.append(math.exp(-decay) * head[-1] + change if head else change)
        if not decreases(head):
            return Increments(tuple(head), decay)
        previous_gain = gain
    raise UserError(
        f"the cycles do not become periodic within {max_cycles} cycles, which retention factors "
        f"need; lower coupling ({model.coupling:g}, bound {model.coupling_bound:.4g}), tau_synapse "
        "or tau_short"
    )


def decreases(head: tuple[float, ...] | list[float]) -> bool:
    """Return True if the last increment is above 0 and below the previous one."""
    return head[-1] > 0 and (len(head) == 1 or head[-1] < head[-2])


@lru_cache(maxsize=128)
def retention_increments(model: MacroModel) -> Increments:
    """Return the strictly decreasing increments of a model; each model is simulated once.

    Raises:
        UserError: as `simulate_increments` does, and if the increments do not decrease. The message
            then names the smallest change of a parameter that makes them decrease.
    """
    increments = simulate_increments(model)
    if decreases(increments.head):
        return increments
    *_, previous, last = increments.head
    raise UserError(
        f"the gain of the long-term process does not fall in cycle {len(increments.head)} "
        f"({previous:.4g}, then {last:.4g}), so the retention factors would not decrease: the "
        f"drive of p^l builds up faster than p^l saturates; {remedy(model)}"
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
"""Parameters whose increase (1) or decrease (-1) can make the increments decrease [C]. The drive of
p^l must settle within the first cycle, or p^l must saturate sooner."""
LADDER = (1.05, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Factors by which `remedy` changes each parameter, in this order [C]."""
QUICK_RTOL = 1e-6
"""Relative tolerance during the search; its result is checked with the full accuracy [C]."""


def remedy(model: MacroModel) -> str:
    """Return a clause with the smallest changes of one parameter that make the increments decrease.

    The first factor of `LADDER` that works for any parameter is narrowed down by bisection. The
    smallest change comes first.
    """
    for failing, factor in zip((1.0, *LADDER), LADDER, strict=False):
        # The quick check first: the exact one is slow.
        names = [name for name in REMEDIES if _works(model, name, factor, QUICK_RTOL)]
        names = [name for name in names if _works(model, name, factor)]
        if names:
            factors = {name: _smallest_factor(model, name, failing, factor) for name in names}
            nearest_first = sorted(factors, key=factors.__getitem__)
            changes = [
                f"{name} {_changed_value(model, name, factors[name]):g} (now {getattr(model, name):g})"
                for name in nearest_first
            ]
            return f"the smallest change that fixes it is {', or '.join(changes)}"
    return f"no change of one of {', '.join(REMEDIES)} by a factor of {LADDER[-1]:g} fixes it"


def _changed_value(model: MacroModel, name: str, factor: float) -> float:
    """Return the parameter times the factor, rounded to three digits away from its old value."""
    value = getattr(model, name) * factor ** REMEDIES[name]
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    # Rounding towards the old value could undo the remedy.
    digits = math.ceil(value / unit - 1e-9) if REMEDIES[name] > 0 else math.floor(value / unit + 1e-9)
    return float(f"{digits * unit:.3g}")


def _works(model: MacroModel, name: str, factor: float, rtol: float = RTOL) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatchWarning)
        try:
            changed = model.changed(name, _changed_value(model, name, factor))
            return decreases(simulate_increments(changed, rtol).head)
        except UserError:
            return False


def _smallest_factor(model: MacroModel, name: str, failing: float, working: float) -> float:
    """Return the smallest factor that works, to 0.2%, by bisection of its logarithm."""
    low, high = failing, working
    while high / low > 1.002:
        middle = math.sqrt(low * high)
        if _works(model, name, middle, QUICK_RTOL):
            high = middle
        else:
            low = middle
    # The bisection ran with the lower accuracy; `working` was checked with the full one.
    return high if _works(model, name, high) else working
