"""Time of a training step, and the share of the machine's matrix-product rate that it reaches."""

from dataclasses import asdict, dataclass, field
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
        return 1 + len(self.setting.methods) + self.repeats * (1 + len(self.setting.methods))


def compare_speed(plan: SpeedPlan) -> SpeedComparison:
    """Judge the gradients, then time the methods that passed in turns, so that a slow minute of the machine hits all alike."""
    setting = plan.setting
    shape = setting.shape
    verdicts = setting.judge_all()
    rows = []
    for name in setting.methods:
        if verdicts[name].refusal is None:
            read = shape.segment_length if METHODS[name].reads == "first" else shape.tokens
            rows.append(SpeedRow(name, shape.batch * read))
    for row in rows:
        setting.begin(f"operations of {row.method}")
        try:
            row.operations = setting.call(model_operations, row.method, shape, setting.device)
        except (OutOfMemoryError, KilledError) as failure:
            row.failure = str(failure)
    rates = []
    for repeat in range(1, plan.repeats + 1):
        setting.begin(f"matrix products, round {repeat}")
        rates.append(setting.call(matrix_product_rate, setting.device, shape.bf16))
        for row in rows:
            if row.failure is None:
                setting.begin(f"{row.method}, round {repeat}")
                _time(plan, row)
    _summarise(rows, median(rates))
    return SpeedComparison(setting, verdicts, rows, rates)


def _time(plan: SpeedPlan, row: SpeedRow) -> None:
    setting = plan.setting
    try:
        found: Measurement = setting.call(measure, row.method, setting.shape, setting.device, plan.warm_up, plan.steps)
    except (OutOfMemoryError, KilledError) as failure:
        row.failure = str(failure)
        return
    row.parameters = found.parameters
    row.step_seconds.append(found.step_seconds)


def _summarise(rows: list[SpeedRow], rate: float) -> None:
    for row in rows:
        if row.failure is None:
            row.seconds = median(second for repeat in row.step_seconds for second in repeat)
            row.tokens_per_second = row.tokens / row.seconds
            assert row.operations is not None
            row.share = row.operations / row.seconds / rate
    bases = {row.method: row.seconds for row in rows if row.method in BASES and row.seconds is not None}
    for row in rows:
        if row.seconds is not None:
            row.relative_to = {name: row.seconds / seconds for name, seconds in bases.items()}
