"""The form of all figures of comparisons, and the figure of memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from rmaat.bench.comparison import Comparison, Row
from rmaat.bench.methods import METHODS
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


@contextmanager
def figure_file(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Make a figure of that size in inches, and write it as PNG when the context ends."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        write_figure(path, figure, DPI)


def mark(index: int) -> dict[str, Any]:
    """Return the colour and the marker of the model or method with this place in its list."""
    # The even colours of the map are strong, the odd ones pale.
    colour = colormaps["tab20"]((2 * index % 20 + index // 10) % 20)
    return {"color": colour, "marker": MARKERS[index % len(MARKERS)]}


def draw_memory(comparison: Comparison, path: Path) -> None:
    """Write a PNG of peak memory and time against tokens, log-log, the floor as a level line."""
    rows, shape = comparison.rows, comparison.shape
    steps = [row for row in rows if row.method != FLOOR]
    lengths = sorted({row.tokens for row in steps})
    with figure_file(path, 11, 5.6) as figure:
        memory, seconds = figure.subplots(1, 2)
        _lines(memory, rows, lambda row: None if row.peak_bytes is None else row.peak_bytes / 2**20)
        _lines(seconds, steps, lambda row: row.seconds)
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
        size = f"{shape.num_hidden_layers} layers, width {shape.hidden_size}, batch {shape.batch}"
        precision = f"{'bf16' if shape.bf16 else 'float32'}{', compiled' * shape.torch_compile}"
        title = f"{size}, segments of {shape.segment_length}, {precision}, on {comparison.device}"
        figure.suptitle(title, x=0.01, ha="left")
        handles, labels = memory.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower left", ncols=3)


def _lines(axes: Axes, rows: list[Row], value: Callable[[Row], float | None]) -> None:
    for method in dict.fromkeys(row.method for row in rows):
        points = [(row.tokens, value(row)) for row in rows if row.method == method]
        x, y = zip(*points, strict=True)
        if y[0] is None:
            continue
        if method == FLOOR:
            axes.axhline(y[0], linestyle="--", linewidth=1.2, color="0.35", label=method)
            continue
        style = mark(METHODS.names().index(method))
        axes.plot(x, y, linewidth=1.6, markersize=5.5, label=method, **style)


def _thousands(tokens: int) -> str:
    if tokens % 2**20 == 0:
        return f"{tokens // 2**20}M"
    return f"{tokens // 1024}K" if tokens % 1024 == 0 else f"{tokens:,}"
