"""`curves.png`, the figure of a run: loss and accuracy over steps."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmaat.machine.files import write_figure

OTHER_SCORES = {"f1_macro": "validation, macro F1", "auc": "validation, area under the ROC curve"}
"""The metrics of the best checkpoint that the figure shows beside the accuracy."""


def draw_curves(
    history: list[dict[str, Any]], majority: float | None, best_metric: str, title: str, path: Path
) -> None:
    """Write a PNG of the training loss, the validation loss and the validation accuracy.

    Without labels there is no accuracy. A run with a curriculum also shows the accuracy up to the
    maximum, and the maximum.

    Args:
        history: the trainer's log, one dict per report.
        majority: accuracy of always guessing the commonest class, drawn as a line; None without
            labels.
        best_metric: the metric by which the best checkpoint was chosen, drawn beside the accuracy.
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
        _draw_accuracy(axes, history, majority, best_metric)
    for axes in (loss, *others):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.suptitle(title)
    write_figure(path, figure, dpi=130)


def _draw_accuracy(accuracy: Axes, history: list[dict[str, Any]], majority: float, best_metric: str) -> None:
    lines = [
        ("eval_accuracy", "validation", "C1"),
        ("eval_level_accuracy", "validation, up to the maximum", "C2"),
    ]
    if best_metric in OTHER_SCORES:
        lines.append((f"eval_{best_metric}", OTHER_SCORES[best_metric], "C4"))
    for key, label, colour in lines:
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
