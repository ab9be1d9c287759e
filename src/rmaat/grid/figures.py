"""The figures of a grid: accuracy against memory, accuracy against time, a panel a task."""

from math import ceil
from pathlib import Path

from rmaat.bench.figures import figure_file, mark
from rmaat.grid.summary import Summary

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
    with figure_file(path, 4.2 * columns + 2.6, 3.5 * rows) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).flat
        drawn = {}
        for task, axes in zip(summary.tasks, panels, strict=False):
            for index, model in enumerate(summary.models):
                height, cost = (summary.spread(of, model, task) for of in ("accuracy", against))
                if height.mean is not None and cost.mean is not None:
                    bars = {"xerr": cost.deviation, "yerr": height.deviation, "capsize": 2}
                    style = {**mark(index), "markersize": 8, "linestyle": "none"}
                    drawn[model] = axes.errorbar(cost.mean, height.mean, **bars, **style)
            axes.set(title=task, xlabel=label, ylabel="test accuracy (%)")
            axes.margins(0.12)
            axes.set_xlim(left=0)
        for axes in list(panels):
            axes.set_visible(False)
        models = [model for model in summary.models if model in drawn]
        handles = [drawn[model] for model in models]
        figure.legend(handles, models, loc="outside right upper")
