"""`curves.png`, the figure of a run: loss and accuracy over steps."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmaat.machine.files import write_figure


def draw_curves(history: list[dict[str, Any]], majority: float | None, title: str, path: Path) -> None:
    """Write a PNG of the training loss, the validation loss and the validation accuracy.

    Without labels there is no accuracy. A run with a curriculum also shows the accuracy up to the maximum, and the maximum.

    Args:
        history: the trainer's log, one dict per report.
        majority: accuracy of always guessing the commonest class, drawn as a line; None without
            labels.
        title: the title of the figure.
        path: the file to write.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, *others = figure.subplots(1, 1 if majority is None else 2, squeeze=False)[0]
    for key, label, style in (("loss", "training", "-"), ("eval_loss", "validation", "o-")):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            loss.plot(*zip(*points, strict=True), style, label=label, markersize=4)
    loss.set(xlabel="step", ylabel="loss", title="Loss")
    loss.legend(frameon=False)
    for axes in others:
        assert majority is not None
        _draw_accuracy(axes, history, majority)
    for axes in (loss, *others):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.suptitle(title)
    write_figure(path, figure, dpi=130)


def _draw_accuracy(accuracy: Axes, history: list[dict[str, Any]], majority: float) -> None:
    for key, label, colour in (
        ("eval_accuracy", "validation", "C1"),
        ("eval_level_accuracy", "validation, up to the maximum", "C2"),
    ):
        points = [(entry["step"], 100 * entry[key]) for entry in history if key in entry]
        if points:
            accuracy.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, label=label)
    points = [(entry["step"], entry["eval_segments"]) for entry in history if "eval_segments" in entry]
    if points:
        segments = accuracy.twinx()
        # A report holds the maximum before its evaluation raised it, so the step ends there.
        segments.step(*zip(*points, strict=True), color="C3", linewidth=1, where="pre")
        segments.yaxis.set_major_locator(MaxNLocator(integer=True))
        segments.set_ylabel("maximum number of segments", color="C3")
    accuracy.axhline(100 * majority, color="grey", linestyle="--", label="commonest class")
    accuracy.set(xlabel="step", ylabel="accuracy (%)", title="Accuracy")
    accuracy.legend(frameon=False)
