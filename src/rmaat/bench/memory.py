"""Peak memory of a training step by length of the sequence, and the longest that fits a limit."""

from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from rmaat.bench.comparison import Begin, Comparison, Row, Save
from rmaat.bench.measure import measure
from rmaat.bench.methods import METHODS
from rmaat.bench.shape import Shape
from rmaat.errors import UserError
from rmaat.machine.tables import Table
from rmaat.machine.units import mebibytes

FLOOR = "one_segment"
"""The method whose peak is a lower bound for the others."""
START_SEGMENTS = 8
"""Segments of the sequence with which the search for the longest begins."""


@dataclass(kw_only=True)
class MemoryRow(Row):
    """One method at one length: with its peak above a baseline, both in bytes."""

    peak_bytes: int | None = None
    baseline_bytes: int | None = None


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
class MemoryComparison(Comparison):
    """A comparison of peak memory, with a `MemoryRow` for each method and length.

    Attributes:
        tokens: lengths of a sequence, ascending.
        limit: bytes for the search of the longest sequence; None for no search.
        longest: the length at which that search ends.
        largest: the results of the search.
    """

    tokens: tuple[int, ...]
    limit: int | None
    longest: int
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
        searches = 0 if self.limit is None else 1
        return len(self.methods) * (1 + len(self.tokens) + searches)

    def run(self, begin: Begin, save: Save) -> None:
        """Measure each method at each length, then search for the longest sequences."""
        for name in filter(lambda name: self.passes(name, begin), self.methods):
            # What reads one segment is measured at one length.
            for tokens in self.tokens[:1] if METHODS[name].first_segment else self.tokens:
                begin(f"{name}, {tokens:,} tokens")
                self.rows.append(self._measured(name, replace(self.shape, tokens=tokens)))
                save(self.to_json())
                if self.rows[-1].failure is not None:
                    break
        for name in () if self.limit is None else self.methods:
            if self.passes(name, begin) and not METHODS[name].first_segment:
                begin(f"longest sequence of {name}")
                self.largest.append(self._longest(Largest(name, self.limit or 0)))
                save(self.to_json())
        save(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return all results as they are stored."""
        return {**super().to_json(), "largest": [asdict(row) for row in self.largest]}

    def _measured(self, name: str, shape: Shape) -> MemoryRow:
        arguments = (name, shape, self.device, self.warm_up, self.steps)
        measured, failure = self.attempt(measure, *arguments)
        row = MemoryRow(method=name, tokens=METHODS[name].tokens(shape), failure=failure)
        if measured is None:
            return row
        return replace(row, **asdict(measured), seconds=median(measured.step_seconds))

    def _longest(self, largest: Largest) -> Largest:
        tokens, limit = START_SEGMENTS * self.shape.segment_length, largest.limit_bytes
        while largest.tokens != self.longest:
            tokens = min(tokens, self.longest)
            shape = replace(self.shape, tokens=tokens, batch=1)
            # A step far beyond the limit is stopped rather than measured.
            arguments = (largest.method, shape, self.device, 0, 1, 2 * limit)
            measured, _ = self.attempt(measure, *arguments)
            if measured is None or measured.peak_bytes > limit:
                return replace(largest, exceeded_at=tokens)
            largest = replace(largest, tokens=tokens, peak_bytes=measured.peak_bytes)
            tokens *= 2
        return largest

    def tables(self) -> list[Table]:
        """Return peak and time of each method at each length, and the longest sequences."""
        floor = next((row.peak_bytes for row in self.rows if row.method == FLOOR), None)
        batch, rows = self.shape.batch, []
        for row in self.rows:
            fields = [row.method, f"{row.tokens:,}"]
            if row.failure is not None:
                rows.append([*fields, row.failure, "", "", "", ""])
                continue
            over = f"{row.peak_bytes / floor:.2f}" if floor else ""
            a_token = 1e6 * row.seconds / (row.tokens * batch)
            times = (f"{row.seconds:.3f}", f"{a_token:.2f}", f"{row.parameters:,}")
            rows.append([*fields, mebibytes(row.peak_bytes), over, *times])
        title = f"Peak memory of a training step, batch {batch}"
        columns = ("peak MiB", "over floor", "s a step", "µs a token", "parameters")
        peaks = Table(title, ("method", "tokens", *columns), rows)
        return [peaks, self._longest_table(self.limit)] if self.limit and self.largest else [peaks]

    def _longest_table(self, limit: int) -> Table:
        rows = [
            (
                row.method,
                "none" if row.tokens is None else f"{row.tokens:,}",
                "" if row.peak_bytes is None else mebibytes(row.peak_bytes),
                "no length tried" if row.exceeded_at is None else f"{row.exceeded_at:,}",
            )
            for row in self.largest
        ]
        headings = ("method", "longest, tokens", "peak MiB", "over the limit at")
        title = f"Longest sequence of a training step within {mebibytes(limit)} MiB, batch 1"
        return Table(title, headings, rows)
