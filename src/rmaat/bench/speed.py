"""Time of a training step, and its share of the machine's matrix-product rate."""

from dataclasses import dataclass, field
from itertools import chain
from statistics import median
from typing import Any

from rmaat.bench.comparison import Begin, Comparison, Row, Save
from rmaat.bench.measure import matrix_product_rate, measure, model_operations
from rmaat.bench.methods import METHODS
from rmaat.errors import UserError
from rmaat.machine.tables import Table

BASES = ("full", "rmt")
"""The methods that times are relative to."""
LEAST_STEPS = 5
"""The fewest timed steps for a median."""


@dataclass(kw_only=True)
class SpeedRow(Row):
    """One method's times.

    Attributes:
        operations: of the matrix products of a step, nothing counted twice.
        tokens_per_second: from the median.
        share: of the matrix-product rate of the same run.
        relative_to: its seconds over those of each base.
    """

    operations: int | None = None
    tokens_per_second: float | None = None
    share: float | None = None
    relative_to: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class SpeedComparison(Comparison):
    """A comparison of times, with a `SpeedRow` for each method whose gradients are right.

    Methods take turns, so a slow minute of the machine affects all.

    Attributes:
        repeats: rounds. In each, every method runs once, in a process of its own on a CPU.
        rates: operations a second of a large matrix product, one for each round.
    """

    repeats: int
    rates: list[float] = field(default_factory=list, init=False)

    def check(self) -> None:
        """Raise `UserError` for an impossible shape or too few steps."""
        self.shape.check()
        if self.repeats < 1 or self.warm_up < 0 or self.repeats * self.steps < LEAST_STEPS:
            raise UserError(
                f"repeats * steps must be at least {LEAST_STEPS} for a median, and warm_up >= 0: "
                f"got repeats {self.repeats}, steps {self.steps}, warm_up {self.warm_up}"
            )

    @property
    def pieces(self) -> int:
        """The most calls of `begin`."""
        return 2 * len(self.methods) + self.repeats * (1 + len(self.methods))

    def run(self, begin: Begin, save: Save) -> None:
        """Time the methods in rounds; the first also counts each method's operations."""
        rows: dict[str, SpeedRow] = {}
        for round_ in range(1, self.repeats + 1):
            begin(f"matrix products, round {round_}")
            self.rates.append(self.call(matrix_product_rate, self.device, self.shape.bf16))
            for name in filter(lambda name: self.passes(name, begin), self.methods):
                if name not in rows:
                    begin(f"operations of {name}")
                    rows[name] = self._counted(name)
                    self.rows.append(rows[name])
                if rows[name].failure is None:
                    begin(f"{name}, round {round_}")
                    self._time(rows[name])
                    self._summarise()
                    save(self.to_json())
        save(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return all results as they are stored."""
        return {**super().to_json(), "matrix_product_rates": list(self.rates)}

    def _counted(self, name: str) -> SpeedRow:
        tokens = self.shape.batch * METHODS[name].tokens(self.shape)
        operations, failure = self.attempt(model_operations, name, self.shape, self.device)
        return SpeedRow(method=name, tokens=tokens, operations=operations, failure=failure)

    def _time(self, row: SpeedRow) -> None:
        arguments = (row.method, self.shape, self.device, self.warm_up, self.steps)
        measured, row.failure = self.attempt(measure, *arguments)
        if measured is not None:
            row.parameters = measured.parameters
            row.step_seconds = [*row.step_seconds, measured.step_seconds]

    def _summarise(self) -> None:
        """Set the medians of all rows so far, and what follows from them."""
        for row in self.rows:
            failed = row.failure is not None
            row.seconds = None if failed else median(chain(*row.step_seconds))
        bases = {row.method: row.seconds for row in self.rows if row.method in BASES}
        for row in self.rows:
            row.tokens_per_second, row.share, row.relative_to = None, None, {}
            if row.seconds is not None:
                row.tokens_per_second = row.tokens / row.seconds
                row.share = row.operations / row.seconds / median(self.rates)
                row.relative_to = {name: row.seconds / base for name, base in bases.items() if base}

    def tables(self) -> list[Table]:
        """Return time, rate and share of the machine's matrix-product rate of each method."""
        rows = []
        for row in self.rows:
            if row.seconds is None:
                rows.append([row.method, row.failure, *[""] * (3 + len(BASES))])
                continue
            times = (f"{row.seconds:.3f}", f"{row.tokens_per_second:,.0f}")
            ratios = (f"{row.relative_to[b]:.2f}" if b in row.relative_to else "" for b in BASES)
            work = (f"{100 * row.share:.1f}", f"{row.parameters:,}")
            rows.append([row.method, *times, *ratios, *work])
        ratios = (f"time over {base}" for base in BASES)
        headings = ("method", "s a step", "tokens/s", *ratios, "% of matmul rate", "parameters")
        return [Table("Time of a training step, medians", headings, rows)]
