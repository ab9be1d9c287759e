"""Time of a training step, and the share of the machine's matrix-product rate that it reaches."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from rmaat.compare.gate import Verdict
from rmaat.compare.measure import Measurement, OutOfMemoryError, measure
from rmaat.compare.methods import METHODS
from rmaat.compare.processes import KilledError
from rmaat.compare.rates import matrix_product_rate, model_operations
from rmaat.compare.run import Setting
from rmaat.errors import UserError

BASES = ("full", "rmt")
"""What times are given relative to."""
LEAST_STEPS = 5
"""Fewer timed steps than this make no median."""


@dataclass
class SpeedRow:
    """One method's times; without them where it could not be measured.

    Attributes:
        method: its name.
        tokens: in one step, all sequences of the batch together.
        parameters: of the model.
        step_seconds: each timed step, one list a repeat.
        operations: of the matrix products of a step, nothing counted twice.
        seconds: the median of all timed steps.
        tokens_per_second: from that median.
        share: of the matrix-product rate measured in the same run.
        relative_to: its seconds over those of each base.
        failure: why there are no figures, or None.
    """

    method: str
    tokens: int
    parameters: int | None = None
    step_seconds: list[tuple[float, ...]] = field(default_factory=list)
    operations: int | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    share: float | None = None
    relative_to: dict[str, float] = field(default_factory=dict)
    failure: str | None = None


@dataclass(frozen=True)
class SpeedComparison:
    """All that `compare_speed` found; `rates` are operations a second of a large matrix product, one a repeat."""

    setting: Setting
    verdicts: dict[str, Verdict]
    rows: list[SpeedRow]
    rates: list[float]

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            **self.setting.header(self.verdicts.values()),
            "matrix_product_rates": self.rates,
            "rows": [asdict(row) for row in self.rows],
        }


@dataclass(frozen=True)
class SpeedPlan:
    """What is to be timed.

    Attributes:
        setting: methods, shape and device.
        repeats: rounds; in each, every method is run once in a process of its own, one after the other.
        warm_up: untimed steps of each process.
        steps: timed steps of each process.
    """

    setting: Setting
    repeats: int
    warm_up: int
    steps: int

    def check(self) -> None:
        """Raise `UserError` for a shape that cannot be, or too few steps."""
        self.setting.shape.check()
        if self.repeats < 1 or self.warm_up < 0 or self.repeats * self.steps < LEAST_STEPS:
            raise UserError(
                f"repeats * steps must be at least {LEAST_STEPS} for a median, and warm_up >= 0: "
                f"got repeats {self.repeats}, steps {self.steps}, warm_up {self.warm_up}"
            )

    @property
    def pieces(self) -> int:
        """How many times `begin` is called at most."""
        return 2 * len(self.setting.methods) + self.repeats * (1 + len(self.setting.methods))


def compare_speed(plan: SpeedPlan, save: Callable[[SpeedComparison], None]) -> SpeedComparison:
    """Time the methods whose gradients are right in turns, so that a slow minute of the machine hits all alike.

    A method's gradients are judged and its operations counted in the first round, just before its first steps.

    Args:
        plan: what is to be timed.
        save: called with the figures so far after every method of every round, so that an interrupted comparison keeps them, and
            at the end.

    Returns:
        The whole comparison.
    """
    setting = plan.setting
    verdicts: dict[str, Verdict] = {}
    rows: list[SpeedRow] = []
    rates: list[float] = []
    for repeat in range(1, plan.repeats + 1):
        setting.begin(f"matrix products, round {repeat}")
        rates.append(setting.call(matrix_product_rate, setting.device, setting.shape.bf16))
        for name in setting.methods:
            if name not in verdicts:
                verdicts[name] = setting.judge(name)
                if verdicts[name].refusal is None:
                    rows.append(_counted(setting, name))
            row = next((row for row in rows if row.method == name), None)
            if row is not None and row.failure is None:
                setting.begin(f"{name}, round {repeat}")
                _time(plan, row)
                save(_summary(setting, verdicts, rows, rates))
    comparison = _summary(setting, verdicts, rows, rates)
    save(comparison)
    return comparison


def _counted(setting: Setting, name: str) -> SpeedRow:
    """Return a method's row with the operations of a step, still without times."""
    shape = setting.shape
    read = shape.segment_length if METHODS[name].reads == "first" else shape.tokens
    setting.begin(f"operations of {name}")
    try:
        operations = setting.call(model_operations, name, shape, setting.device)
    except (OutOfMemoryError, KilledError) as failure:
        return SpeedRow(name, shape.batch * read, failure=str(failure))
    return SpeedRow(name, shape.batch * read, operations=operations)


def _time(plan: SpeedPlan, row: SpeedRow) -> None:
    setting = plan.setting
    try:
        found: Measurement = setting.call(measure, row.method, setting.shape, setting.device, plan.warm_up, plan.steps)
    except (OutOfMemoryError, KilledError) as failure:
        row.failure = str(failure)
        return
    row.parameters = found.parameters
    row.step_seconds.append(found.step_seconds)


def _summary(
    setting: Setting, verdicts: dict[str, Verdict], rows: list[SpeedRow], rates: list[float]
) -> SpeedComparison:
    """Return a copy of the figures so far, with the medians of the steps; the rows themselves stay without them."""
    rate = median(rates)
    timed = {
        row.method: median(second for repeat in row.step_seconds for second in repeat)
        for row in rows
        if row.failure is None and row.step_seconds
    }
    bases = {name: seconds for name, seconds in timed.items() if name in BASES}

    def summarised(row: SpeedRow) -> SpeedRow:
        row = replace(row, step_seconds=list(row.step_seconds))
        seconds = timed.get(row.method)
        if seconds is None:
            return row
        assert row.operations is not None
        return replace(
            row,
            seconds=seconds,
            tokens_per_second=row.tokens / seconds,
            share=row.operations / seconds / rate,
            relative_to={name: seconds / of_base for name, of_base in bases.items()},
        )

    return SpeedComparison(setting, dict(verdicts), [summarised(row) for row in rows], list(rates))
