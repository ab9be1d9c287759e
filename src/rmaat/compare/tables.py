"""The comparisons as tables of text: headings and rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rmaat.compare.gate import Verdict
from rmaat.compare.memory import MemoryComparison, MemoryRow
from rmaat.compare.speed import BASES, SpeedComparison
from rmaat.machine.units import mebibytes

FLOOR = "one_segment"


@dataclass(frozen=True)
class Listing:
    """A titled table; the first column is text, the others are numbers."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def memory_listing(found: MemoryComparison) -> Listing:
    """Peak and time of each method at each length, and the peak over that of one segment alone."""
    floor = next((row.peak_bytes for row in found.rows if row.method == FLOOR), None)

    def cells(row: MemoryRow) -> tuple[str, ...]:
        tokens = f"{row.tokens:,}"
        if row.peak_bytes is None or row.seconds is None:
            return row.method, tokens, str(row.failure), "", "", "", ""
        over = "" if not floor else f"{row.peak_bytes / floor:.2f}"
        read = row.tokens * found.setting.shape.batch
        return (
            row.method,
            tokens,
            mebibytes(row.peak_bytes),
            over,
            f"{row.seconds:.3f}",
            f"{1e6 * row.seconds / read:.2f}",
            f"{row.parameters:,}",
        )

    headings = ("method", "tokens", "peak MiB", "over floor", "s a step", "µs a token", "parameters")
    batch = found.setting.shape.batch
    return Listing(f"Peak memory of a training step, batch {batch}", headings, [cells(row) for row in found.rows])


def largest_listing(found: MemoryComparison) -> Listing:
    """The longest sequence of each method under the limit."""
    rows = []
    for row in found.largest:
        reached = "none" if row.tokens is None else f"{row.tokens:,}"
        peak = "" if row.peak_bytes is None else mebibytes(row.peak_bytes)
        rows.append(
            (row.method, reached, peak, "no length tried" if row.exceeded_at is None else f"{row.exceeded_at:,}")
        )
    limit = mebibytes(found.largest[0].limit_bytes)
    headings = ("method", "longest, tokens", "peak MiB", "over the limit at")
    return Listing(f"Longest sequence of a training step within {limit} MiB, batch 1", headings, rows)


def speed_listing(found: SpeedComparison) -> Listing:
    """Time, rate and share of the machine's matrix-product rate of each method."""
    rows = []
    for row in found.rows:
        if row.seconds is None or row.tokens_per_second is None or row.share is None:
            rows.append((row.method, str(row.failure), *[""] * (4 + len(BASES))))
            continue
        relative = (f"{row.relative_to[base]:.2f}" if base in row.relative_to else "" for base in BASES)
        numbers = (f"{row.seconds:.3f}", f"{row.tokens_per_second:,.0f}", *relative, f"{100 * row.share:.1f}")
        rows.append((row.method, *numbers, f"{row.parameters:,}"))
    over = (f"time over {base}" for base in BASES)
    headings = ("method", "s a step", "tokens/s", *over, "% of matmul rate", "parameters")
    return Listing("Time of a training step, medians", headings, rows)


def refusals(verdicts: Iterable[Verdict], absent: dict[str, str]) -> list[str]:
    """A line on each method that is not in the tables."""
    refused = [f"{v.method}: not reported, {v.refusal}" for v in verdicts if v.refusal is not None]
    return [*refused, *(f"{name}: not run, {reason}" for name, reason in absent.items())]
