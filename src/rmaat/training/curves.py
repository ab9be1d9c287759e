"""`curves.png`, the figure of a run: loss and a metric over steps."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmaat.machine.files import write_figure
from rmaat.training.problems import Problem


def draw_curves(
    history: list[dict[str, Any]], problem: Problem, guess: float | None, best_metric: str, title: str, path: Path
) -> None:
    """Write a PNG of the training loss, the validation loss and the problem's usual metric.

    Without labels there is no metric. A run with a curriculum also shows the accuracy up to the
    maximum, and the maximum.

    Args:
        history: the trainer's log, one dict per report.
        problem: the problem type.
        guess: the usual metric of a guess that reads nothing, drawn as a line; None without labels.
        best_metric: the metric by which the best checkpoint was chosen, drawn beside the usual one if
            it has the same unit.
        title: the title of the figure.
        path: the file to write.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, *others = figure.subplots(1, 1 if guess is None else 2, squeeze=False)[0]
    for key, label, style in (("loss", "training", "-"), ("eval_loss", "validation", "o-")):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            loss.plot(*zip(*points, strict=True), style, label=label, markersize=4)
    loss.set(xlabel="step", ylabel="loss", title="Loss")
    loss.legend(frameon=False)
    for axes in others:
        assert guess is not None
        _draw_metric(axes, history, problem, guess, best_metric)
    for axes in (loss, *others):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.suptitle(title)
    write_figure(path, figure, dpi=130)


def _draw_metric(
    metric_axes: Axes, history: list[dict[str, Any]], problem: Problem, guess: float, best_metric: str
) -> None:
    main = problem.main_metric
    percent = main in problem.shares
    factor = 100 if percent else 1
    lines = [
        (f"eval_{main}", "validation", "C1"),
        ("eval_level_accuracy", "validation, up to the maximum", "C2"),
    ]
    if best_metric in problem.ranked_with_loss and best_metric != main:
        lines.append((f"eval_{best_metric}", f"validation, {problem.titles[best_metric]}", "C4"))
    for key, label, colour in lines:
        points = [(entry["step"], factor * entry[key]) for entry in history if key in entry]
        if points:
            metric_axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, label=label)
    points = [(entry["step"], entry["eval_segments"]) for entry in history if "eval_segments" in entry]
    if points:
        segments = metric_axes.twinx()
        # A report holds the maximum before its evaluation raised it, so the step ends there.
        segments.step(*zip(*points, strict=True), color="C3", linewidth=1, where="pre")
        segments.yaxis.set_major_locator(MaxNLocator(integer=True))
        segments.set_ylabel("maximum number of segments", color="C3")
    name = next(iter(problem.guesses.values())).removeprefix("always ")
    metric_axes.axhline(factor * guess, color="grey", linestyle="--", label=name)
    title = problem.titles[main]
    title = title[0].upper() + title[1:]
    metric_axes.set(xlabel="step", ylabel=f"{problem.titles[main]}{' (%)' if percent else ''}", title=title)
    metric_axes.legend(frameon=False)
