"""The comparisons as figures: a method has the same colour and marker in all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rmaat.bench.memory import MemoryComparison, MemoryRow
from rmaat.bench.methods import METHODS
from rmaat.bench.speed import SpeedComparison
from rmaat.bench.tables import FLOOR
from rmaat.machine.files import write_figure

STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
MARKERS = "osD^vP*XhpdH<>"
DPI = 130


def draw_memory(comparison: MemoryComparison, path: Path) -> None:
    """Write a PNG of peak memory and time against tokens, log-log, the floor as a level line."""
    rows, shape = comparison.rows, comparison.shape
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 5.6), layout="constrained")
        memory, seconds = figure.subplots(1, 2)
        lengths = sorted({row.tokens for row in rows if row.method != FLOOR})
        _lines(memory, rows, lambda row: None if row.peak_bytes is None else row.peak_bytes / 2**20)
        _lines(seconds, [row for row in rows if row.method != FLOOR], lambda row: row.seconds)
        memory.set_ylabel("peak memory of a training step (MiB)")
        seconds.set_ylabel("time of a training step (s)")
        for axes in (memory, seconds):
            axes.set(xscale="log", yscale="log", xlabel="tokens in one sequence")
            axes.set_xticks(lengths, [_thousands(tokens) for tokens in lengths])
            axes.xaxis.minorticks_off()
            if len(lengths) == 1:
                axes.set_xlim(lengths[0] / 2, lengths[0] * 2)
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        title = (
            f"{shape.num_hidden_layers} layers, width {shape.hidden_size}, batch {shape.batch}, "
            f"segments of {shape.segment_length}, {shape.precision}, on {comparison.device}"
        )
        figure.suptitle(title, x=0.01, ha="left")
        handles, labels = memory.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower left", ncols=3)
        write_figure(path, figure, DPI)


def draw_speed(comparison: SpeedComparison, path: Path) -> None:
    """Write a PNG of tokens a second, a bar a method, with its share of the matrix-product rate."""
    shape = comparison.shape
    bars = {
        row.method: (row.tokens_per_second, f"{row.tokens_per_second:,.0f}  ({row.share:.0%})")
        for row in reversed(comparison.rows)
        if row.tokens_per_second is not None
    }
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 1.6 + 0.36 * len(bars)), layout="constrained")
        axes = figure.subplots()
        rates, labels = ([bar[index] for bar in bars.values()] for index in (0, 1))
        drawn = axes.barh(list(bars), rates, color=[_colour(method) for method in bars])
        axes.bar_label(drawn, labels, padding=4)
        axes.margins(x=0.3)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("tokens a second in training (share of the matrix-product rate)")
        size = f"{shape.tokens:,} tokens, batch {shape.batch}"
        axes.set_title(f"{size}, {shape.precision}, on {comparison.device}")
        write_figure(path, figure, DPI)


def _lines(axes: Axes, rows: list[MemoryRow], value: Callable[[MemoryRow], float | None]) -> None:
    for method in dict.fromkeys(row.method for row in rows):
        points = [(row.tokens, value(row)) for row in rows if row.method == method]
        x, y = zip(*points, strict=True)
        style: dict[str, Any] = {"color": _colour(method), "label": method}
        if y[0] is None:
            continue
        if method == FLOOR:
            axes.axhline(y[0], linestyle="--", linewidth=1.2, **style)
            continue
        marker = MARKERS[METHODS.names().index(method) % len(MARKERS)]
        axes.plot(x, y, marker=marker, linewidth=1.6, markersize=5.5, **style)


def _colour(method: str) -> Any:
    if method == FLOOR:
        return "0.35"
    # The even colours of the map are strong, the odd ones pale.
    index = 2 * METHODS.names().index(method)
    return colormaps["tab20"]((index % 20 + index // 20) % 20)


def _thousands(tokens: int) -> str:
    if tokens % 2**20 == 0:
        return f"{tokens // 2**20}M"
    return f"{tokens // 1024}K" if tokens % 1024 == 0 else f"{tokens:,}"
