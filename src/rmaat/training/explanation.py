"""Which segment of a text decided its label or number: the outputs after each segment."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmaat.errors import printable
from rmaat.machine.files import write_figure
from rmaat.training.finished_run import FinishedRun
from rmaat.training.inference import Reading, read_segments
from rmaat.training.problems import Problem

MOST_CURVES = 5
"""Labels that the figure shows: those that were the most probable ones after some segment."""


@dataclass(frozen=True)
class Segment:
    """A segment of a text, and the prediction for the text up to its end.

    Attributes:
        text: the segment's text.
        outputs: probabilities of all labels, or the number, see `rmaat.training.inference.Reading`.
        change: of the explained output; that of the first segment is the difference from a guess, in
            which all classes are equally probable, a label has the probability 0.5, or the number is
            the mean of the training part.
    """

    text: str
    outputs: tuple[float, ...]
    change: float


@dataclass(frozen=True)
class Explanation:
    """The prediction for a text, and how it arose.

    Attributes:
        label: the explained output: the most probable label, or the column of the number.
        label_names: all labels, in the order of the outputs.
        segments: the text's segments, in order.
        problem: the problem type.
    """

    label: str
    label_names: tuple[str, ...]
    segments: tuple[Segment, ...]
    problem: Problem

    @property
    def index(self) -> int:
        """The place of the explained output."""
        return self.label_names.index(self.label)

    @property
    def output(self) -> float:
        """The explained output after the last segment: the label's probability, or the number."""
        return self.segments[-1].outputs[self.index]

    def record(self) -> dict[str, Any]:
        """Return all of it in the form of explanation.json."""
        return {
            "label": self.label,
            "label_names": self.label_names,
            "segments": [
                {"text": segment.text, self.problem.explained: segment.outputs, "change": segment.change}
                for segment in self.segments
            ],
        }

    def most_decisive(self, count: int) -> list[int]:
        """Return the indices of the segments that changed the explained output most, most first."""
        return sorted(range(len(self.segments)), key=lambda i: -abs(self.segments[i].change))[:count]

    def leaders(self) -> list[int]:
        """Return the indices of the labels whose curves are drawn: that of the text first.

        They were the most probable ones after some segment; of many, the last `MOST_CURVES`.
        """
        labels = range(len(self.label_names))
        leaders = {max(labels, key=segment.outputs.__getitem__): None for segment in reversed(self.segments)}
        return list(leaders)[:MOST_CURVES]


def explain(run: FinishedRun, text: str) -> Explanation:
    """Return the prediction for a text after each of its segments, computed on the model's device.

    Raises:
        UserError: see `rmaat.training.inference.read_segments`.
    """
    return explanation_of(run, list(read_segments(run, text)))


def explanation_of(run: FinishedRun, readings: Sequence[Reading]) -> Explanation:
    """Return the explanation of a text, or of its beginning, from what was read of it.

    Args:
        run: the finished run that read it.
        readings: the segments in order, at least one.
    """
    names, problem = run.source.info.label_names, run.source.problem
    last = readings[-1].outputs
    explained = max(range(len(last)), key=last.__getitem__)
    course = [problem.uninformed(run.model.config), *(reading.outputs[explained] for reading in readings)]
    segments = (
        Segment(reading.text, reading.outputs, after - before)
        for reading, (before, after) in zip(readings, pairwise(course), strict=True)
    )
    return Explanation(names[explained], names, tuple(segments), problem)


def draw_explanation(explanation: Explanation, title: str, path: Path) -> None:
    """Write a PNG: the outputs after each segment, and the change by each."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    course, change = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    segments, probabilities = explanation.segments, explanation.problem.explained == "probabilities"
    numbers, factor = range(1, len(segments) + 1), 100 if probabilities else 1
    names = explanation.label_names
    for index in explanation.leaders():
        course.plot(
            numbers, [factor * s.outputs[index] for s in segments], "o-", markersize=4, label=_plain(names[index])
        )
    course.set(title=_plain(title), ylabel="probability (%)" if probabilities else "predicted")
    if probabilities:
        course.set_ylim(0, 100)
    course.legend(frameon=False)
    changes = [factor * segment.change for segment in segments]
    change.bar(numbers, changes, color=["C0" if value >= 0 else "C3" for value in changes])
    change.axhline(0, color="grey", linewidth=0.8)
    unit = "\n(percentage points)" if probabilities else ""
    change.set(xlabel="segment", ylabel=f"change of '{_plain(explanation.label)}'{unit}")
    change.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (course, change):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    write_figure(path, figure, dpi=130)


def _plain(text: str) -> str:
    """Return a text that matplotlib draws as it is: no formula, and not hidden from the legend."""
    return " " + printable(text).replace("$", r"\$")
