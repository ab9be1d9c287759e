"""The comparisons as figures: one colour and marker a method, the same in all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rmaat.compare.memory import MemoryComparison, MemoryRow
from rmaat.compare.methods import METHODS
from rmaat.compare.speed import SpeedComparison
from rmaat.compare.tables import FLOOR
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


def draw_memory(found: MemoryComparison, path: Path) -> None:
    """Write a PNG of peak memory and time against tokens, log-log, one line a method, the floor as a level line."""
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 5.6), layout="constrained")
        FigureCanvasAgg(figure)
        memory, seconds = figure.subplots(1, 2)
        lengths = sorted({row.tokens for row in found.rows if row.method != FLOOR})
        _lines(memory, found.rows, lambda row: None if row.peak_bytes is None else row.peak_bytes / 2**20)
        _lines(seconds, [row for row in found.rows if row.method != FLOOR], lambda row: row.seconds)
        for axes, label in ((memory, "peak memory of a training step (MiB)"), (seconds, "time of a training step (s)")):
            axes.set(xscale="log", yscale="log", xlabel="tokens in one sequence", ylabel=label)
            axes.set_xticks(lengths, [_thousands(tokens) for tokens in lengths])
            axes.xaxis.minorticks_off()
            if len(lengths) == 1:
                axes.set_xlim(lengths[0] / 2, lengths[0] * 2)
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        shape = found.setting.shape
        what = "bf16" if shape.bf16 else "float32"
        figure.suptitle(
            f"{shape.num_hidden_layers} layers, width {shape.hidden_size}, batch {shape.batch}, segments of "
            f"{shape.segment_length}, {what}{', compiled' if shape.torch_compile else ''}, on {found.setting.device}",
            x=0.01,
            ha="left",
        )
        handles, labels = memory.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower left", ncols=3)
        write_figure(path, figure, DPI)


def draw_speed(found: SpeedComparison, path: Path) -> None:
    """Write a PNG of tokens a second, one bar a method, its share of the matrix-product rate beside it."""
    rows = [row for row in found.rows if row.tokens_per_second is not None][::-1]
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 1.6 + 0.36 * len(rows)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        bars = axes.barh(
            [row.method for row in rows],
            [row.tokens_per_second or 0.0 for row in rows],
            color=[_colour(row.method) for row in rows],
        )
        axes.bar_label(
            bars, [f"{row.tokens_per_second:,.0f}  ({100 * (row.share or 0):.0f}%)" for row in rows], padding=4
        )
        axes.margins(x=0.3)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.grid(axis="y", visible=False)
        shape = found.setting.shape
        axes.set(
            xlabel="tokens a second in training (share of the matrix-product rate)",
            title=f"{shape.tokens:,} tokens, batch {shape.batch}, {'bf16' if shape.bf16 else 'float32'}"
            f"{', compiled' if shape.torch_compile else ''}, on {found.setting.device}",
        )
        write_figure(path, figure, DPI)


def _lines(axes: Axes, rows: list[MemoryRow], value: Callable[[MemoryRow], float | None]) -> None:
    for method in dict.fromkeys(row.method for row in rows):
        points = [(row.tokens, value(row)) for row in rows if row.method == method]
        drawn = [(tokens, y) for tokens, y in points if y is not None]
        if not drawn:
            continue
        if method == FLOOR:
            axes.axhline(drawn[0][1], color=_colour(method), linestyle="--", linewidth=1.2, label=method)
            continue
        marker = MARKERS[METHODS.names().index(method) % len(MARKERS)]
        x, y = zip(*drawn, strict=True)
        axes.plot(x, y, marker=marker, color=_colour(method), linewidth=1.6, markersize=5.5, label=method)


def _colour(method: str) -> Any:
    """By the place among all methods, so that a method looks alike in every figure."""
    from matplotlib import colormaps

    if method == FLOOR:
        return "0.35"
    names = METHODS.names()
    return colormaps["tab20"]((2 * names.index(method)) % 20 + (2 * names.index(method)) // 20)


def _thousands(tokens: int) -> str:
    if tokens % 2**20 == 0:
        return f"{tokens // 2**20}M"
    return f"{tokens // 1024}K" if tokens % 1024 == 0 else f"{tokens:,}"
