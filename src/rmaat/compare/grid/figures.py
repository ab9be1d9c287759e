"""The figures of a grid: accuracy against memory, accuracy against time, a panel a task."""

from collections.abc import Callable
from math import ceil
from pathlib import Path

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rmaat.compare.grid.summary import Spread, Summary
from rmaat.machine.files import write_figure

MARKERS = "osD^vP*Xh<>pd"
COLUMNS = 3


def draw_accuracy(summary: Summary, against: Callable[[str, str], Spread | None], label: str, path: Path) -> None:
    """Write a PNG: each model's accuracy over what it took, means with bars of one standard deviation over seeds.

    Args:
        summary: the grid.
        against: what is on the horizontal axis, by model and task.
        label: its name and unit.
        path: where the picture goes.
    """
    columns = min(COLUMNS, len(summary.tasks))
    rows = ceil(len(summary.tasks) / columns)
    figure = Figure(figsize=(4.2 * columns + 2.6, 3.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    colours = colormaps["tab20" if len(summary.models) > 10 else "tab10"].colors  # type: ignore[attr-defined]
    drawn = {}
    for task, axes in zip(summary.tasks, panels, strict=False):
        for index, model in enumerate(summary.models):
            accuracy, cost = summary.accuracy(model, task), against(model, task)
            if accuracy is None or accuracy.mean is None or cost is None or cost.mean is None:
                continue
            drawn[model] = axes.errorbar(
                cost.mean,
                accuracy.mean,
                yerr=accuracy.deviation,
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
    shown = [model for model in summary.models if model in drawn]
    figure.legend([drawn[model] for model in shown], shown, loc="outside right upper", frameon=False)
    write_figure(path, figure, dpi=130)
