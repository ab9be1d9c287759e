"""Peak memory of a training step by length of the sequence, and the longest that fits a limit."""

from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from rmaat.bench.comparison import Begin, Comparison, Save
from rmaat.bench.measure import measure
from rmaat.bench.methods import METHODS
from rmaat.errors import UserError

START_SEGMENTS = 8
"""Segments of the sequence with which the search for the longest begins."""


@dataclass(frozen=True)
class MemoryRow:
    """One method at one length; None stands for figures that could not be measured.

    Attributes:
        method: its name.
        tokens: of one sequence as the step reads it.
        parameters: of the model.
        peak_bytes: above the baseline.
        baseline_bytes: before the steps.
        seconds: of a step, the median.
        step_seconds: of each timed step.
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
    tokens: int | None
    peak_bytes: int | None
    exceeded_at: int | None


@dataclass(kw_only=True)
class MemoryComparison(Comparison):
    """A comparison of peak memory.

    Attributes:
        tokens: lengths of a sequence, ascending.
        limit: bytes for the search of the longest sequence; None for no search.
        longest: the length at which that search ends.
        rows: one for each method and length.
        largest: the results of the search.
    """

    tokens: tuple[int, ...]
    limit: int | None
    longest: int
    rows: list[MemoryRow] = field(default_factory=list, init=False)
    largest: list[Largest] = field(default_factory=list, init=False)

    def check(self) -> None:
        """Raise `UserError` for impossible lengths, shapes or numbers of steps."""
        if not self.tokens:
            raise UserError("--tokens names no length")
        for tokens in (*self.tokens, *([] if self.limit is None else [self.longest])):
            replace(self.shape, tokens=tokens).check()
        if self.steps < 1 or self.warm_up < 0:
            counts = f"{self.steps} and {self.warm_up}"
            raise UserError(f"steps must be >= 1 and warm_up >= 0, not {counts}")

    @property
    def pieces(self) -> int:
        """The most calls of `begin`."""
        return len(self.methods) + len(self._points()) + len(self._searched())

    def run(self, begin: Begin, save: Save) -> None:
        """Measure each method at each length, then search for the longest sequences."""
        ended: set[str] = set()
        for name, tokens in self._points():
            if self.passes(name, begin) and name not in ended:
                begin(f"{name}, {tokens:,} tokens")
                self.rows.append(self._row(name, tokens))
                save(self.to_json())
                if self.rows[-1].failure is not None:
                    ended.add(name)
        for name in self._searched():
            if self.passes(name, begin):
                begin(f"longest sequence of {name}")
                self.largest.append(self._search(name))
                save(self.to_json())
        save(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return all results as they are stored."""
        rows, largest = ([asdict(row) for row in group] for group in (self.rows, self.largest))
        return {**super().to_json(), "rows": rows, "largest": largest}

    def _points(self) -> list[tuple[str, int]]:
        """Return methods with lengths. What reads one segment is measured at one length."""
        points = [(name, tokens) for name in self.methods for tokens in self.tokens]
        least = self.tokens[0]
        return [(name, n) for name, n in points if n == least or not METHODS[name].first_segment]

    def _searched(self) -> list[str]:
        names = [] if self.limit is None else self.methods
        return [name for name in names if not METHODS[name].first_segment]

    def _row(self, name: str, tokens: int) -> MemoryRow:
        shape = replace(self.shape, tokens=tokens)
        arguments = (name, shape, self.device, self.warm_up, self.steps)
        found, failure = self.attempt(measure, *arguments)
        row = MemoryRow(name, METHODS[name].tokens(shape), failure=failure)
        if found is None:
            return row
        return replace(row, **asdict(found), seconds=median(found.step_seconds))

    def _search(self, name: str) -> Largest:
        assert self.limit is not None
        largest = Largest(name, self.limit, None, None, None)
        tokens = min(START_SEGMENTS * self.shape.segment_length, self.longest)
        while tokens != largest.tokens:
            shape = replace(self.shape, tokens=tokens, batch=1)
            # A step far beyond the limit is stopped rather than measured.
            found, _ = self.attempt(measure, name, shape, self.device, 0, 1, 2 * self.limit)
            if found is None or found.peak_bytes > self.limit:
                return replace(largest, exceeded_at=tokens)
            largest = replace(largest, tokens=tokens, peak_bytes=found.peak_bytes)
            tokens = min(2 * tokens, self.longest)
        return largest
