"""The tables of a comparison: memory, the longest sequences, speed."""

from collections.abc import Callable
from typing import Any

from rmaat.bench.comparison import BASES, Comparison
from rmaat.machine.tables import Table
from rmaat.machine.units import mebibytes

FLOOR = "one_segment"
"""The method whose peak is a lower bound for the others."""

Columns = dict[str, Callable[[Any], str]]
"""Headings, and how the figures of a row are written."""


def memory_table(comparison: Comparison) -> Table:
    """Return peak and time of each method at each length, and the peak over the floor's."""
    floor = next((row.peak_bytes for row in comparison.rows if row.method == FLOOR), None)
    columns: Columns = {
        "peak MiB": lambda row: mebibytes(row.peak_bytes),
        "over floor": lambda row: f"{row.peak_bytes / floor:.2f}" if floor else "",
        "s a step": lambda row: f"{row.seconds:.3f}",
        "µs a token": lambda row: f"{1e6 / row.tokens_per_second:.2f}",
        "parameters": lambda row: f"{row.parameters:,}",
    }
    title = f"Peak memory of a training step, batch {comparison.shape.batch}"
    return _table(comparison, title, columns)


def speed_table(comparison: Comparison) -> Table:
    """Return time, rate and share of the machine's matrix-product rate of each method."""
    columns: Columns = {
        "s a step": lambda row: f"{row.seconds:.3f}",
        "tokens/s": lambda row: f"{row.tokens_per_second:,.0f}",
        **{f"time over {base}": _ratio(base) for base in BASES},
        "% of matmul rate": lambda row: f"{100 * row.share:.1f}",
        "parameters": lambda row: f"{row.parameters:,}",
    }
    return _table(comparison, "Time of a training step, medians", columns)


def _ratio(base: str) -> Callable[[Any], str]:
    return lambda row: f"{row.relative_to[base]:.2f}" if base in row.relative_to else ""


def _table(comparison: Comparison, title: str, columns: Columns) -> Table:
    """Return a table of all rows; the figures of one that failed are the reason and blanks."""
    rows = []
    for row in comparison.rows:
        fields = [str(row.failure), *[""] * (len(columns) - 1)]
        if row.failure is None:
            fields = [write(row) for write in columns.values()]
        rows.append([row.method, f"{row.tokens:,}", *fields])
    return Table(title, ("method", "tokens", *columns), rows)


def longest_table(comparison: Comparison) -> Table:
    """Return the longest sequence of each method within the limit."""
    rows = [
        (
            row.method,
            "none" if row.tokens is None else f"{row.tokens:,}",
            "" if row.peak_bytes is None else mebibytes(row.peak_bytes),
            "no length tried" if row.exceeded_at is None else f"{row.exceeded_at:,}",
        )
        for row in comparison.largest
    ]
    headings = ("method", "longest, tokens", "peak MiB", "over the limit at")
    limit = mebibytes(comparison.limit or 0)
    title = f"Longest sequence of a training step within {limit} MiB, batch 1"
    return Table(title, headings, rows)
