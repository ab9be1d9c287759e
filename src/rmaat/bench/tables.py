"""The comparisons as tables of text: headings and rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from rmaat.bench.comparison import Comparison
from rmaat.bench.memory import MemoryComparison
from rmaat.bench.speed import BASES, SpeedComparison
from rmaat.machine.units import mebibytes

FLOOR = "one_segment"
"""The method whose peak is a lower bound for the others."""


@dataclass(frozen=True)
class Listing:
    """A titled table; the first column is text, the others are numbers."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def memory_listing(comparison: MemoryComparison) -> Listing:
    """Return peak and time of each method at each length, and the peak over the floor's."""
    floor = next((row.peak_bytes for row in comparison.rows if row.method == FLOOR), None)
    batch, rows = comparison.shape.batch, []
    for row in comparison.rows:
        cells = [row.method, f"{row.tokens:,}"]
        if row.peak_bytes is None or row.seconds is None:
            rows.append((*cells, str(row.failure), "", "", "", ""))
            continue
        over = f"{row.peak_bytes / floor:.2f}" if floor else ""
        cells += [mebibytes(row.peak_bytes), over, f"{row.seconds:.3f}"]
        cells += [f"{1e6 * row.seconds / (row.tokens * batch):.2f}", f"{row.parameters:,}"]
        rows.append(tuple(cells))
    columns = ("peak MiB", "over floor", "s a step", "µs a token", "parameters")
    title = f"Peak memory of a training step, batch {batch}"
    return Listing(title, ("method", "tokens", *columns), rows)


def largest_listing(comparison: MemoryComparison) -> Listing:
    """Return the longest sequence of each method within the limit."""
    rows = []
    for row in comparison.largest:
        tokens = "none" if row.tokens is None else f"{row.tokens:,}"
        peak = "" if row.peak_bytes is None else mebibytes(row.peak_bytes)
        exceeded = "no length tried" if row.exceeded_at is None else f"{row.exceeded_at:,}"
        rows.append((row.method, tokens, peak, exceeded))
    limit = mebibytes(comparison.largest[0].limit_bytes)
    headings = ("method", "longest, tokens", "peak MiB", "over the limit at")
    title = f"Longest sequence of a training step within {limit} MiB, batch 1"
    return Listing(title, headings, rows)


def speed_listing(comparison: SpeedComparison) -> Listing:
    """Return time, rate and share of the machine's matrix-product rate of each method."""
    rows = []
    for row in comparison.rows:
        if row.seconds is None or row.tokens_per_second is None or row.share is None:
            rows.append((row.method, str(row.failure), *[""] * (4 + len(BASES))))
            continue
        relative = row.relative_to
        ratios = (f"{relative[base]:.2f}" if base in relative else "" for base in BASES)
        times = (f"{row.seconds:.3f}", f"{row.tokens_per_second:,.0f}", *ratios)
        rows.append((row.method, *times, f"{100 * row.share:.1f}", f"{row.parameters:,}"))
    ratios = (f"time over {base}" for base in BASES)
    headings = ("method", "s a step", "tokens/s", *ratios, "% of matmul rate", "parameters")
    return Listing("Time of a training step, medians", headings, rows)


def unreported(comparison: Comparison) -> list[str]:
    """Return a line for each method that is not in the tables."""
    refused = [c for c in comparison.checks.values() if c.refusal is not None]
    return [
        *(f"{check.method}: not reported, {check.refusal}" for check in refused),
        *(f"{name}: not run, {reason}" for name, reason in comparison.absent.items()),
    ]
