"""Means and spreads over the seeds of a grid."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rmaat.grid.outcomes import FINISHED, Outcome
from rmaat.grid.published import TASKS
from rmaat.machine.tables import MISSING
from rmaat.presets import MODELS

BASELINE = "rmt"
"""The model by whose throughput the others' are divided."""

MEASURES: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "accuracy": lambda metrics: 100 * metrics["test_accuracy"],
    "memory": lambda metrics: metrics["training_memory_bytes"] / 1e9,
    "speed": lambda metrics: metrics["train_tokens_per_second"],
    "minutes": lambda metrics: metrics["train_seconds"] / 60,
}
"""Percent of the test part; GB (10^9 bytes) at the peak of a training step; tokens per second and
minutes in training steps."""


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds of a model on a task.

    Attributes:
        values: one a finished seed.
        failed: number of seeds that diverged or failed.
    """

    values: tuple[float, ...] = ()
    failed: int = 0

    @property
    def mean(self) -> float | None:
        """The mean; None if no seed has finished."""
        return fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation (over n - 1); None for fewer than two seeds."""
        return stdev(self.values) if len(self.values) > 1 else None

    def text(self, digits: str) -> str:
        """Return mean ± deviation, each formatted by `digits`, and the numbers of seeds."""
        failed = f"{self.failed} failed" if self.failed else ""
        if self.mean is None:
            return failed or MISSING
        deviation = "" if self.deviation is None else f" ± {self.deviation:{digits}}"
        counts = ", ".join(filter(None, (f"n={len(self.values)}", failed)))
        return f"{self.mean:{digits}}{deviation} ({counts})"


class Summary:
    """The outcomes of a grid by model and task.

    Attributes:
        outcomes: all of them.
        finished: those with metrics.
        models: labels in the order of `MODELS`, each model before its variants.
        tasks: names, the paper's first and in its order.
    """

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = list(outcomes)
        self.finished = [outcome for outcome in outcomes if outcome.status == FINISHED]
        models = {outcome.cell.model for outcome in outcomes}
        order = MODELS.names()
        self.models = sorted(models, key=lambda m: (_place(m.partition("[")[0], order), m))
        tasks = {outcome.cell.task for outcome in outcomes}
        self.tasks = sorted(tasks, key=lambda task: (_place(task, TASKS), task))

    def metrics(self, model: str, task: str) -> list[Mapping[str, Any]]:
        """Return the metrics of the finished seeds of a model on a task."""
        return [o.metrics for o in self.finished if (o.cell.model, o.cell.task) == (model, task)]

    def spread(self, measure: str, model: str, task: str) -> Spread:
        """Return one of `MEASURES` for a model on a task, without values if it was not run."""
        cells = [outcome.cell for outcome in self.outcomes]
        ran = sum((cell.model, cell.task) == (model, task) for cell in cells)
        values = tuple(MEASURES[measure](metrics) for metrics in self.metrics(model, task))
        return Spread(values, ran - len(values))

    def throughput(self, model: str, task: str) -> Spread:
        """Return tokens per second over the mean of `BASELINE`; no values if that has none."""
        speed, baseline = (self.spread("speed", name, task) for name in (model, BASELINE))
        if baseline.mean is None:
            return Spread()
        return Spread(tuple(value / baseline.mean for value in speed.values), speed.failed)


def _place(name: str, names: Sequence[str]) -> int:
    return names.index(name) if name in names else len(names)
