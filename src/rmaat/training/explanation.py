"""Which segment of a text decided its label: the probabilities after each segment.

Axes: T segments, C classes.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmaat.errors import UserError, printable
from rmaat.machine.files import write_figure
from rmaat.training.finished_run import FinishedRun
from rmaat.training.inference import reads_any_length

MOST_CURVES = 5
"""Labels that the figure shows: those that were the most probable ones after some segment."""


@dataclass(frozen=True)
class Segment:
    """A segment of a text, and the prediction for the text up to its end.

    Attributes:
        text: the segment's text.
        probabilities: of all labels, by what the model has read up to here. For a text that ends
            here they are the same if retention does not depend on the number of segments.
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


@torch.no_grad()
def explain(run: FinishedRun, text: str) -> Explanation:
    """Return the prediction for a text after each of its segments, computed on the model's device.

    The model reads what `predict` reads of the text, in one call. Memory grows by some hundred bytes
    with each token.

    Raises:
        UserError: if the run's model has no prediction after a segment, the text is empty or cannot
            be encoded, or its logits are not finite.
    """
    info, config = run.source.info, run.model.config
    if len(info.columns) > 1 or info.kind == "image":
        raise UserError(f"explain needs a task with one text; {run.config.dataset} has another kind of example")
    if config.pooled_norm:
        raise UserError("a model with pooled_norm has no prediction before the end of a text; train one without")
    ids_N = run.source.task.encode(text)
    if not reads_any_length(run):
        ids_N = ids_N[: run.source.sequence_limit]
    batch = {name: x.to(run.model.device) for name, x in run.source.collator()([{info.columns[0]: ids_N}]).items()}
    logits_TC = run.model(**batch, output_segment_logits=True).segment_logits[0].double().cpu()
    if not logits_TC.isfinite().all():
        raise UserError("the logits for this text are not finite, so it has no prediction; the training diverged")
    probabilities_TC = logits_TC.softmax(-1)
    winner = int(probabilities_TC[-1].argmax())
    classes, size = probabilities_TC.shape[1], config.tokens_per_segment
    course = [1 / classes, *probabilities_TC[:, winner].tolist()]
    segments = (
        Segment(run.source.task.decode(ids_N[start : start + size]), tuple(row), after - before)
        for start, row, (before, after) in zip(
            range(0, len(ids_N), size), probabilities_TC.tolist(), pairwise(course), strict=True
        )
    )
    return Explanation(info.label_names[winner], info.label_names, tuple(segments))


def draw_explanation(explanation: Explanation, title: str, path: Path) -> None:
    """Write a PNG: the probabilities after each segment, and the change by each."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    course, change = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    segments = explanation.segments
    numbers = range(1, len(segments) + 1)
    names = explanation.label_names
    leaders = {max(range(len(names)), key=segment.probabilities.__getitem__): None for segment in reversed(segments)}
    for index in list(leaders)[:MOST_CURVES]:
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
