"""The figures of a grid: accuracy against memory, accuracy against time, a panel a task."""

from math import ceil
from pathlib import Path

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rmaat.grid.summary import Summary
from rmaat.machine.files import write_figure

MARKERS = "osD^vP*Xh<>pd"
COLUMNS = 3


def draw_accuracy(summary: Summary, against: str, label: str, path: Path) -> None:
    """Write a PNG of each model's accuracy against a cost: means, bars of one standard deviation.

    Args:
        summary: the grid.
        against: the cost on the horizontal axis, one of `MEASURES`.
        label: its name and unit.
        path: the file.
    """
    columns = min(COLUMNS, len(summary.tasks))
    rows = ceil(len(summary.tasks) / columns)
    figure = Figure(figsize=(4.2 * columns + 2.6, 3.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    palette = "tab20" if len(summary.models) > 10 else "tab10"
    colours = colormaps[palette].colors  # type: ignore[attr-defined]
    drawn = {}
    for task, axes in zip(summary.tasks, panels, strict=False):
        for index, model in enumerate(summary.models):
            height, cost = (summary.spread(of, model, task) for of in ("accuracy", against))
            if height.mean is None or cost.mean is None:
                continue
            drawn[model] = axes.errorbar(
                cost.mean,
                height.mean,
                yerr=height.deviation,
                xerr=cost.deviation,
                color=colours[index % len(colours)],
                marker=MARKERS[index % len(MARKERS)],
                markersize=8,
                linestyle="none",
                capsize=2,
            )
        axes.set(title=task, xlabel=label, ylabel="test accuracy (%)")
        axes.margins(0.12)
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    for axes in list(panels):
        axes.set_visible(False)
    models = [model for model in summary.models if model in drawn]
    handles = [drawn[model] for model in models]
    figure.legend(handles, models, loc="outside right upper", frameon=False)
    write_figure(path, figure, dpi=130)
