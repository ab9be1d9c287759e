"""The figures of an evaluation: confusion, reliability, reliability by length, predicted numbers.

Axes: C classes, K bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rmaat.errors import printable
from rmaat.machine.files import write_figure
from rmaat.training.run_folder import RELIABILITY_BY_LENGTH

if TYPE_CHECKING:
    from rmaat.training.problems import Problem

DPI = 130
MOST_LABELLED_CLASSES = 25
"""A matrix of more classes has neither numbers nor names of classes."""
LONGEST_NAME = 20


def draw_evaluation(metrics: Mapping[str, Any], problem: Problem, folder: Path) -> list[Path]:
    """Write the figures of the test in `metrics.json`, and return their paths.

    Args:
        metrics: the results of `rmaat.training.results.tested`, or more.
        problem: the problem type, which chooses the figures.
        folder: an existing folder.
    """
    paths = problem.draw(metrics, folder)
    if by_length := (metrics.get("calibration") or {}).get("by_length"):
        paths.append(folder / RELIABILITY_BY_LENGTH)
        draw_by_length(by_length, paths[-1])
    return paths


def draw_confusion(matrix: Sequence[Sequence[int]], names: Sequence[str], path: Path) -> None:
    """Write a PNG of the confusion matrix. Colours are shares of a class, numbers are examples.

    Args:
        matrix: (C, C), rows are labels and columns are answers.
        names: of the C classes.
        path: the file to write.
    """
    counts = np.array(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    labelled = len(names) <= MOST_LABELLED_CLASSES
    size = 3.6 + 0.45 * min(len(names), MOST_LABELLED_CLASSES)
    figure = Figure(figsize=(size + 0.9, size), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, label="share of the class (%)", fraction=0.046)
    axes.set(xlabel="answer", ylabel="label", title="Test examples by label and answer")
    if labelled:
        shown = [_short(name) for name in names]
        axes.set_xticks(range(len(names)), shown, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_yticks(range(len(names)), shown, parse_math=False)
        for row, column in np.ndindex(*counts.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = f"{counts[row, column]:,}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    write_figure(path, figure, DPI)


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def draw_reliability(bins: Mapping[str, Sequence[float]], calibration_error: float, path: Path) -> None:
    """Write a PNG of accuracy against confidence, above the numbers of answers.

    Args:
        bins: the attributes of `rmaat.training.metrics.Reliability`, (K,) each.
        calibration_error: the expected calibration error, for the title.
        path: the file to write.
    """
    confidence, accuracy, count = (np.array(bins[name]) for name in ("confidence", "accuracy", "count"))
    edges = np.linspace(0, 1, len(count) + 1)
    filled = count > 0
    figure = Figure(figsize=(4.6, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _bars(upper, edges, accuracy)
    upper.plot((0, 1), (0, 1), color="grey", linestyle="--", label="calibrated")
    upper.plot(confidence[filled], accuracy[filled], "o", color="C1", markersize=4, label="mean of a bin")
    upper.set(ylim=(0, 1), ylabel="accuracy", title=f"Expected calibration error {calibration_error:.3f}")
    upper.legend(frameon=False, loc="upper left")
    _bars(lower, edges, count)
    lower.set(xlim=(0, 1), xlabel="probability of the answer", ylabel="answers")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    write_figure(path, figure, DPI)


def draw_numbers(points: Mapping[str, Sequence[float]], rmse: float, path: Path) -> None:
    """Write a PNG of predicted against true numbers.

    Args:
        points: the `true` and the `predicted` numbers of some examples.
        rmse: the root of the mean squared error, for the title.
        path: the file to write.
    """
    true, predicted = np.array(points["true"]), np.array(points["predicted"])
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    figure = Figure(figsize=(5, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(ends, ends, color="grey", linestyle="--")
    axes.plot(true, predicted, "o", markersize=4, alpha=0.4, markeredgewidth=0)
    axes.set(xlabel="true", ylabel="predicted", title=f"Test examples, root of mean square error {rmse:.4g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    write_figure(path, figure, DPI)


def draw_by_length(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG of accuracy against confidence, with a line for each length of the texts.

    Args:
        rows: the results of `rmaat.training.calibration.calibration_by_length`.
        path: the file to write.
    """
    figure = Figure(figsize=(5.2, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color="grey", linestyle="--")
    for row in rows:
        bins = row["reliability"]
        confidence, right, count = (np.array(bins[name]) for name in ("confidence", "accuracy", "count"))
        # The accuracy of a few answers says little.
        enough = count >= max(1, count.sum() // 100)
        tokens = round(row["mean_tokens"])
        length = f"{tokens:,} token{'s' * (tokens != 1)}: error {row['calibration_error']:.3f}"
        axes.plot(confidence[enough], right[enough], "o-", markersize=4, label=length)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the answer", ylabel="accuracy")
    axes.set_title("Test texts, whole and cut")
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    write_figure(path, figure, DPI)


def _bars(axes: Axes, edges: Any, heights: Any) -> None:
    axes.bar(edges[:-1], heights, np.diff(edges), align="edge", color="C0", alpha=0.5, edgecolor="white")
