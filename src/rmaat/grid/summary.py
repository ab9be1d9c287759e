"""Means and spreads over the seeds of a grid."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rmaat.grid.outcomes import FINISHED, Outcome
from rmaat.grid.published import TASKS
from rmaat.machine.tables import MISSING
from rmaat.presets import MODELS

MEASURES: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "accuracy": lambda metrics: 100 * metrics["test_accuracy"],
    "memory": lambda metrics: metrics["training_memory_bytes"] / 1e9,
    "speed": lambda metrics: metrics["train_tokens_per_second"],
    "throughput": lambda metrics: metrics["train_tokens_per_second"],
    "minutes": lambda metrics: metrics["train_seconds"] / 60,
}
"""Percent of the test part; GB (10^9 bytes) at the peak of a training step; tokens per second,
the same over the mean of `BASELINE`, and minutes, in training steps."""

BASELINE = "rmt"
"""The model by whose throughput the others' are divided."""


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
        failed = [f"{self.failed} failed"] if self.failed else []
        if self.mean is None:
            return failed[0] if failed else MISSING
        deviation = "" if self.deviation is None else f" ± {self.deviation:{digits}}"
        counts = ", ".join([f"n={len(self.values)}", *failed])
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
        self.outcomes = outcomes
        self.finished = [outcome for outcome in outcomes if outcome.status == FINISHED]
        order = [*MODELS.names(), *TASKS]
        models, tasks = ({o.cell.model for o in outcomes}, {o.cell.task for o in outcomes})
        places = {name: place for place, name in enumerate(order)}

        def place(name: str) -> tuple[int, str]:
            return places.get(name.partition("[")[0], len(order)), name

        self.models, self.tasks = sorted(models, key=place), sorted(tasks, key=place)

    def spread(self, measure: str, model: str, task: str) -> Spread:
        """Return one of `MEASURES` for a model on a task, without values if there is none."""
        ran = [o for o in self.outcomes if (o.cell.model, o.cell.task) == (model, task)]
        metrics = [outcome.metrics for outcome in ran if outcome.status == FINISHED]
        values, failed = tuple(map(MEASURES[measure], metrics)), len(ran) - len(metrics)
        if measure == "throughput":
            baseline = self.spread("speed", BASELINE, task).mean
            if baseline is None:
                return Spread()
            values = tuple(value / baseline for value in values)
        return Spread(values, failed)
