"""Which segment of a text decided its label: the probabilities after each segment."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmaat.errors import printable
from rmaat.machine.files import write_figure
from rmaat.training.finished_run import FinishedRun
from rmaat.training.inference import Reading, read_segments

MOST_CURVES = 5
"""Labels that the figure shows: those that were the most probable ones after some segment."""


@dataclass(frozen=True)
class Segment:
    """A segment of a text, and the prediction for the text up to its end.

    Attributes:
        text: the segment's text.
        probabilities: of all labels, see `rmaat.training.inference.Reading`.
        change: of the probability of the label that the whole text has; that of the first segment is
            the difference from a guess, in which all labels are equally probable.
    """

    text: str
    probabilities: tuple[float, ...]
    change: float


@dataclass(frozen=True)
class Explanation:
    """The prediction for a text, and how it arose.

    Attributes:
        label: the label of the whole text.
        label_names: all labels, in the order of the probabilities.
        segments: the segments of the text, first to last.
    """

    label: str
    label_names: tuple[str, ...]
    segments: tuple[Segment, ...]

    @property
    def probability(self) -> float:
        """The probability of the label, after the last segment."""
        return max(self.segments[-1].probabilities)

    def most_decisive(self, count: int) -> list[int]:
        """Return the indices of the segments that changed the label's probability most, most first."""
        return sorted(range(len(self.segments)), key=lambda i: -abs(self.segments[i].change))[:count]

    def leaders(self) -> list[int]:
        """Return the indices of the labels whose curves are drawn: that of the text first.

        They were the most probable ones after some segment; of many, the last `MOST_CURVES`.
        """
        labels = range(len(self.label_names))
        leaders = {max(labels, key=segment.probabilities.__getitem__): None for segment in reversed(self.segments)}
        return list(leaders)[:MOST_CURVES]


def explain(run: FinishedRun, text: str) -> Explanation:
    """Return the prediction for a text after each of its segments, computed on the model's device.

    Raises:
        UserError: see `rmaat.training.inference.read_segments`.
    """
    return explanation_of(run.source.info.label_names, list(read_segments(run, text)))


def explanation_of(label_names: Sequence[str], readings: Sequence[Reading]) -> Explanation:
    """Return the explanation of a text, or of its beginning, from what was read of it.

    Args:
        label_names: all labels, in the order of the probabilities.
        readings: the segments in order, at least one.
    """
    last = readings[-1].probabilities
    winner = max(range(len(last)), key=last.__getitem__)
    course = [1 / len(last), *(reading.probabilities[winner] for reading in readings)]
    segments = (
        Segment(reading.text, reading.probabilities, after - before)
        for reading, (before, after) in zip(readings, pairwise(course), strict=True)
    )
    return Explanation(label_names[winner], tuple(label_names), tuple(segments))


def draw_explanation(explanation: Explanation, title: str, path: Path) -> None:
    """Write a PNG: the probabilities after each segment, and the change by each."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    course, change = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    segments = explanation.segments
    numbers = range(1, len(segments) + 1)
    names = explanation.label_names
    for index in explanation.leaders():
        course.plot(
            numbers, [100 * s.probabilities[index] for s in segments], "o-", markersize=4, label=_plain(names[index])
        )
    course.set(ylabel="probability (%)", ylim=(0, 100), title=_plain(title))
    course.legend(frameon=False)
    changes = [100 * segment.change for segment in segments]
    change.bar(numbers, changes, color=["C0" if value >= 0 else "C3" for value in changes])
    change.axhline(0, color="grey", linewidth=0.8)
    change.set(xlabel="segment", ylabel=f"change of '{_plain(explanation.label)}'\n(percentage points)")
    change.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (course, change):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    write_figure(path, figure, dpi=130)


def _plain(text: str) -> str:
    """Return a text that matplotlib draws as it is: no formula, and not hidden from the legend."""
    return " " + printable(text).replace("$", r"\$")
