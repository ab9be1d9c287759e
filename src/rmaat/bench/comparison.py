"""A comparison of methods: gradients checked, then memory and time of their training steps.

`rmaat compare memory` varies the length of the sequence, and may search the longest within a limit.
`rmaat compare speed` takes turns, and sets times in relation to the machine's matrix products.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from rmaat.bench.gradient_check import GradientCheck, check_gradients
from rmaat.bench.measure import matrix_product_rate, measure, model_operations
from rmaat.bench.methods import METHODS
from rmaat.bench.shape import Shape
from rmaat.errors import UserError
from rmaat.machine.processes import OutOfMemoryError
from rmaat.machine.provenance import provenance

ALLOCATORS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "PYTORCH_")
"""Prefixes of environment variables for the allocators, which can more than double a peak."""
BASES = ("full", "rmt")
"""The methods that times are relative to."""
START_SEGMENTS = 8
"""Segments of the sequence with which the search for the longest begins."""

Begin = Callable[[str], None]
"""Called with the name of each piece of work before it begins."""
Save = Callable[[dict[str, Any]], None]
"""Called with the JSON of all results after each row, so an interrupted comparison has them."""


@dataclass
class Row:
    """The figures of one method at one length; None stands for those that were not measured.

    Attributes:
        method: its name.
        tokens: of one sequence as the step reads it.
        parameters: of the model.
        peak_bytes: above the baseline.
        baseline_bytes: before the steps.
        step_seconds: of each timed step, in their order.
        seconds: their median.
        tokens_per_second: from the median, of all sequences of the batch.
        operations: of the matrix products of a step, nothing counted twice.
        share: of the matrix-product rate of the same run.
        relative_to: its seconds over those of each of `BASES`, of a rated comparison.
        failure: why there are no figures, or None.
    """

    method: str
    tokens: int
    parameters: int | None = None
    peak_bytes: int | None = None
    baseline_bytes: int | None = None
    step_seconds: tuple[float, ...] = ()
    seconds: float | None = None
    tokens_per_second: float | None = None
    operations: int | None = None
    share: float | None = None
    relative_to: dict[str, float] = field(default_factory=dict)
    failure: str | None = None


@dataclass(frozen=True)
class Largest:
    """The longest sequence, batch 1, that a method trains within a limit; lengths are doubled.

    Attributes:
        method: its name.
        limit_bytes: the limit on the peak.
        tokens: the longest within the limit; None if even the shortest tried exceeds it.
        peak_bytes: at that length.
        exceeded_at: the length that exceeded the limit; None if all lengths tried are within it.
    """

    method: str
    limit_bytes: int
    tokens: int | None = None
    peak_bytes: int | None = None
    exceeded_at: int | None = None


@dataclass(kw_only=True)
class Comparison:
    """The methods to measure, and the results so far.

    Attributes:
        shape: model and batch.
        tokens: lengths of a sequence, ascending.
        methods: names, in the order of the tables.
        absent: the names of methods left out, and why.
        device: 'cpu' or 'cuda'.
        call: how each measurement is called: (function, *arguments) -> the function's result.
        warm_up: untimed steps of each measurement.
        steps: timed steps of each measurement.
        repeats: rounds over all methods, so that a slow minute of the machine affects all.
        least_steps: the fewest timed steps in all rounds that make a median.
        rated: also measure matrix products in each round, and count each method's operations.
        limit: bytes for the search of the longest sequence; None for no search.
        longest: the length at which that search ends.
    """

    shape: Shape
    tokens: tuple[int, ...]
    methods: tuple[str, ...]
    absent: dict[str, str]
    device: str
    call: Callable[..., Any]
    warm_up: int
    steps: int
    repeats: int = 1
    least_steps: int = 1
    rated: bool = False
    limit: int | None = None
    longest: int = 0
    checks: dict[str, GradientCheck] = field(default_factory=dict, init=False)
    rates: list[float] = field(default_factory=list, init=False)
    rows: list[Row] = field(default_factory=list, init=False)
    largest: list[Largest] = field(default_factory=list, init=False)

    def check(self) -> None:
        """Raise `UserError` for impossible lengths, shapes or numbers of steps."""
        if not self.tokens:
            raise UserError("--tokens names no length")
        for tokens in (*self.tokens, *([] if self.limit is None else [self.longest])):
            replace(self.shape, tokens=tokens).check()
        if self.repeats < 1 or self.warm_up < 0 or self.repeats * self.steps < self.least_steps:
            counts = f"repeats {self.repeats}, steps {self.steps}, warm_up {self.warm_up}"
            least = f"repeats * steps must be >= {self.least_steps}"
            raise UserError(f"{least}, repeats >= 1 and warm_up >= 0; got {counts}")

    @property
    def pieces(self) -> int:
        """The most calls of `begin`."""
        once = 1 + self.rated + (self.limit is not None)
        a_round = self.rated + len(self.methods) * len(self.tokens)
        return once * len(self.methods) + self.repeats * a_round

    def run(self, begin: Begin, save: Save) -> None:
        """Measure each method at each length, then search for the longest sequences."""
        for round_ in range(1, self.repeats + 1):
            if self.rated:
                begin(f"matrix products, round {round_}")
                self.rates.append(self.call(matrix_product_rate, self.device, self.shape.bf16))
            for name in filter(lambda name: self.passes(name, begin), self.methods):
                # What reads one segment is measured at one length.
                for tokens in self.tokens[:1] if METHODS[name].first_segment else self.tokens:
                    shape = replace(self.shape, tokens=tokens)
                    row = self._row(name, shape, begin)
                    if row.failure is None:
                        place = f"round {round_}" if self.rated else f"{tokens:,} tokens"
                        begin(f"{name}, {place}")
                        self._measure(row, shape)
                        self._summarise()
                        save(self.to_json())
                    if row.failure is not None:
                        # A longer sequence would need more memory still.
                        break
        for name in self.methods if self.limit is not None else ():
            if self.passes(name, begin) and not METHODS[name].first_segment:
                begin(f"longest sequence of {name}")
                self.largest.append(self._longest(Largest(name, self.limit or 0)))
                save(self.to_json())
        save(self.to_json())

    def passes(self, name: str, begin: Begin) -> bool:
        """Return whether a method's gradients are right; they are checked at the first call."""
        if name not in self.checks:
            begin(f"gradients of {name}")
            self.checks[name] = self.call(check_gradients, name, self.shape, self.device)
        return self.checks[name].refusal is None

    def _attempt(self, function: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
        """Return the function's result and None, or None and the message if memory ran out."""
        try:
            return self.call(function, *arguments), None
        except OutOfMemoryError as failure:
            return None, str(failure)

    def _row(self, name: str, shape: Shape, begin: Begin) -> Row:
        """Return the row of a method at the shape's length, made in the first round."""
        tokens = METHODS[name].tokens(shape)
        for row in self.rows:
            if (row.method, row.tokens) == (name, tokens):
                return row
        row = Row(name, tokens)
        if self.rated:
            begin(f"operations of {name}")
            arguments = (name, shape, self.device)
            row.operations, row.failure = self._attempt(model_operations, *arguments)
        self.rows.append(row)
        return row

    def _measure(self, row: Row, shape: Shape) -> None:
        arguments = (row.method, shape, self.device, self.warm_up, self.steps)
        measured, row.failure = self._attempt(measure, *arguments)
        if measured is not None:
            row.parameters, row.baseline_bytes = measured.parameters, measured.baseline_bytes
            row.peak_bytes = max(row.peak_bytes or 0, measured.peak_bytes)
            row.step_seconds += measured.step_seconds

    def _summarise(self) -> None:
        """Set the medians of all rows so far, and what follows from them."""
        for row in self.rows:
            row.seconds = None if row.failure is not None else median(row.step_seconds)
        bases = {row.method: row.seconds for row in self.rows if self.rated and row.method in BASES}
        for row in self.rows:
            row.tokens_per_second, row.share, row.relative_to = None, None, {}
            if row.seconds is not None:
                row.tokens_per_second = row.tokens * self.shape.batch / row.seconds
                row.relative_to = {name: row.seconds / base for name, base in bases.items() if base}
                if row.operations is not None:
                    row.share = row.operations / row.seconds / median(self.rates)

    def _longest(self, largest: Largest) -> Largest:
        tokens, limit = START_SEGMENTS * self.shape.segment_length, largest.limit_bytes
        while largest.tokens != self.longest:
            tokens = min(tokens, self.longest)
            shape = replace(self.shape, tokens=tokens, batch=1)
            # A step far beyond the limit is stopped rather than measured.
            arguments = (largest.method, shape, self.device, 0, 1, 2 * limit)
            measured, _ = self._attempt(measure, *arguments)
            if measured is None or measured.peak_bytes > limit:
                return replace(largest, exceeded_at=tokens)
            largest = replace(largest, tokens=tokens, peak_bytes=measured.peak_bytes)
            tokens *= 2
        return largest

    def to_json(self) -> dict[str, Any]:
        """Return the circumstances of the comparison, and the results, as they are stored."""
        import torch

        environment = sorted(os.environ.items())
        return {
            **provenance(),
            "threads": torch.get_num_threads(),
            "environment": {k: value for k, value in environment if k.startswith(ALLOCATORS)},
            "device": self.device,
            "shape": asdict(self.shape),
            "gradients": [asdict(check) for check in self.checks.values()],
            "absent": self.absent,
            "matrix_product_rates": list(self.rates),
            "rows": [asdict(row) for row in self.rows],
            "largest": [asdict(row) for row in self.largest],
        }

    def unreported(self) -> list[str]:
        """Return a line for each method that is not in the tables."""
        refused = [check for check in self.checks.values() if check.refusal is not None]
        return [
            *(f"{check.method}: not reported, {check.refusal}" for check in refused),
            *(f"{name}: not run, {reason}" for name, reason in self.absent.items()),
        ]
