"""Peak memory and time of a training step against the length of the sequence, and the longest that trains under a limit."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from rmaat.compare.gate import Verdict
from rmaat.compare.measure import Measurement, OutOfMemoryError, measure
from rmaat.compare.methods import METHODS
from rmaat.compare.processes import KilledError
from rmaat.compare.run import Setting
from rmaat.errors import UserError

START_SEGMENTS = 8
"""Where the search for the longest sequence begins."""


@dataclass(frozen=True)
class MemoryRow:
    """One method at one length; without figures where it could not be measured.

    Attributes:
        method: its name.
        tokens: of one sequence as the step reads it.
        parameters: of the model.
        peak_bytes: above the baseline.
        baseline_bytes: before the steps.
        seconds: a step, the median.
        step_seconds: each timed step.
        failure: why there are no figures, or None.
    """

    method: str
    tokens: int
    parameters: int | None = None
    peak_bytes: int | None = None
    baseline_bytes: int | None = None
    seconds: float | None = None
    step_seconds: tuple[float, ...] = ()
    failure: str | None = None


@dataclass(frozen=True)
class Largest:
    """The longest sequence, batch 1, that a method trains under a limit; lengths are doubled.

    Attributes:
        method: its name.
        limit_bytes: the limit on the peak.
        tokens: the longest under the limit; None where even the shortest tried is over it.
        peak_bytes: at that length.
        exceeded_at: the length that was over the limit; None where the longest to be tried was still under it.
    """

    method: str
    limit_bytes: int
    tokens: int | None
    peak_bytes: int | None
    exceeded_at: int | None


@dataclass(frozen=True)
class MemoryComparison:
    """All that `compare_memory` found."""

    setting: Setting
    verdicts: dict[str, Verdict]
    rows: list[MemoryRow]
    largest: list[Largest]

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {
            **self.setting.header(self.verdicts.values()),
            "rows": [asdict(row) for row in self.rows],
            "largest": [asdict(found) for found in self.largest],
        }


@dataclass(frozen=True)
class MemoryPlan:
    """What is to be measured.

    Attributes:
        setting: methods, shape and device.
        tokens: lengths of a sequence, ascending.
        warm_up: untimed steps of each measurement.
        steps: timed steps of each measurement.
        limit: bytes for the search of the longest sequence; None for no search.
        longest: where that search ends.
    """

    setting: Setting
    tokens: tuple[int, ...]
    warm_up: int
    steps: int
    limit: int | None
    longest: int

    def check(self) -> None:
        """Raise `UserError` for lengths, shapes or counts that cannot be."""
        if not self.tokens:
            raise UserError("--tokens names no length")
        for tokens in (*self.tokens, *([] if self.limit is None else [self.longest])):
            replace(self.setting.shape, tokens=tokens).check()
        if self.steps < 1 or self.warm_up < 0:
            raise UserError(f"steps must be >= 1 and warm_up >= 0, not {self.steps} and {self.warm_up}")

    def points(self) -> list[tuple[str, int]]:
        """The methods and the lengths that they are measured at; what reads the first segment alone is measured once."""
        names = self.setting.methods
        return [
            (name, tokens) for name in names for tokens in self.tokens[: 1 if METHODS[name].reads == "first" else None]
        ]

    def searched(self) -> list[str]:
        """The methods whose longest sequence is looked for."""
        if self.limit is None:
            return []
        return [name for name in self.setting.methods if METHODS[name].reads != "first"]

    @property
    def pieces(self) -> int:
        """How many times `begin` is called at most."""
        return len(self.setting.methods) + len(self.points()) + len(self.searched())


def compare_memory(plan: MemoryPlan, save: Callable[[MemoryComparison], None]) -> MemoryComparison:
    """Judge each method's gradients, measure it at each length if they passed, then look for the longest sequences.

    Args:
        plan: what is to be measured.
        save: called with the figures so far after every row, so that an interrupted comparison keeps them, and at the end.

    Returns:
        The whole comparison.
    """
    setting = plan.setting
    comparison = MemoryComparison(setting, {}, [], [])
    stopped: set[str] = set()
    for name, tokens in plan.points():
        # Judged one by one, so that the first row need not wait for the last method's gradients.
        if name not in comparison.verdicts:
            comparison.verdicts[name] = setting.judge(name)
        if comparison.verdicts[name].refusal is None and name not in stopped:
            setting.begin(f"{name}, {tokens:,} tokens")
            comparison.rows.append(_row(plan, name, tokens))
            save(comparison)
            if comparison.rows[-1].failure is not None:
                stopped.add(name)
    for name in plan.searched():
        if comparison.verdicts[name].refusal is None:
            setting.begin(f"longest sequence of {name}")
            comparison.largest.append(_search(plan, name))
            save(comparison)
    save(comparison)
    return comparison


def _row(plan: MemoryPlan, name: str, tokens: int) -> MemoryRow:
    setting = plan.setting
    shape = replace(setting.shape, tokens=tokens)
    read = shape.segment_length if METHODS[name].reads == "first" else tokens
    try:
        found: Measurement = setting.call(measure, name, shape, setting.device, plan.warm_up, plan.steps)
    except (OutOfMemoryError, KilledError) as failure:
        return MemoryRow(name, read, failure=str(failure))
    return MemoryRow(
        name, read, found.parameters, found.peak_bytes, found.baseline_bytes, found.seconds, found.step_seconds
    )


def _search(plan: MemoryPlan, name: str) -> Largest:
    assert plan.limit is not None
    best: tuple[int, int] | None = None
    exceeded = None
    for tokens in _lengths(START_SEGMENTS * plan.setting.shape.segment_length, plan.longest):
        peak = _peak(plan, name, tokens, plan.limit)
        if peak is None or peak > plan.limit:
            exceeded = tokens
            break
        best = tokens, peak
    reached, peak_bytes = best or (None, None)
    return Largest(name, plan.limit, reached, peak_bytes, exceeded)


def _lengths(start: int, longest: int) -> Iterator[int]:
    tokens = start
    while tokens < longest:
        yield tokens
        tokens *= 2
    yield longest


def _peak(plan: MemoryPlan, name: str, tokens: int, limit: int) -> int | None:
    """The peak of a step at batch 1; None where it wanted far more than the limit."""
    setting = plan.setting
    shape = replace(setting.shape, tokens=tokens, batch=1)
    try:
        found: Measurement = setting.call(measure, name, shape, setting.device, 0, 1, 2 * limit)
    except (OutOfMemoryError, KilledError):
        return None
    return found.peak_bytes
