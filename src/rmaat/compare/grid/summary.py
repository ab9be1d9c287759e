"""From the lines of a grid to means and spreads over seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rmaat.compare.grid.models import model_names
from rmaat.compare.grid.published import TASKS
from rmaat.compare.grid.results import FINISHED, Record

BASELINE = "rmt"
"""What throughput is told against."""


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds of a model on a task.

    Attributes:
        values: one a finished seed.
        failed: seeds without a figure: diverged, or stopped by something else.
    """

    values: tuple[float, ...]
    failed: int = 0

    @property
    def mean(self) -> float | None:
        """None where no seed has finished."""
        return fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The sample's standard deviation (over n - 1); None for fewer than two seeds."""
        return stdev(self.values) if len(self.values) > 1 else None

    def over(self, divisor: float) -> "Spread":
        """The figure in other units."""
        return Spread(tuple(value / divisor for value in self.values), self.failed)


class Summary:
    """The records of a grid by model and task: models in their own order, each before its variants; tasks in the paper's."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = list(records)
        names = model_names()
        self.models = tuple(
            sorted(
                {record.model for record in records}, key=lambda label: (_place(label.partition("[")[0], names), label)
            )
        )
        self.tasks = tuple(sorted({record.task for record in records}, key=lambda task: (_place(task, TASKS), task)))

    def spread(self, model: str, task: str, value: Callable[[dict[str, Any]], float]) -> Spread | None:
        """A figure of a model on a task; None where it was not run."""
        cells = [record for record in self.records if (record.model, record.task) == (model, task)]
        finished = [record for record in cells if record.status == FINISHED]
        if not cells:
            return None
        return Spread(tuple(value(record.values) for record in finished), len(cells) - len(finished))

    def accuracy(self, model: str, task: str) -> Spread | None:
        """On the test part, percent."""
        return self.spread(model, task, lambda values: 100 * values["test_accuracy"])

    def memory(self, model: str, task: str) -> Spread | None:
        """The most that a training step needed, GB (10^9 bytes)."""
        return self.spread(model, task, lambda values: values["training_memory_bytes"] / 1e9)

    def tokens_per_second(self, model: str, task: str) -> Spread | None:
        """In training steps."""
        return self.spread(model, task, lambda values: values["train_tokens"] / values["train_seconds"])

    def minutes(self, model: str, task: str) -> Spread | None:
        """In training steps."""
        return self.spread(model, task, lambda values: values["train_seconds"] / 60)

    def throughput(self, model: str, task: str) -> Spread | None:
        """Tokens per second over the mean of `BASELINE` on the task; without a value where that has none."""
        own, baseline = self.tokens_per_second(model, task), self.tokens_per_second(BASELINE, task)
        if own is None or baseline is None or baseline.mean is None:
            return None
        return own.over(baseline.mean)

    def parameters(self, model: str, task: str) -> Spread | None:
        """Number of parameters."""
        return self.spread(model, task, lambda values: values["num_parameters"])


def _place(name: str, names: Sequence[str]) -> int:
    return names.index(name) if name in names else len(names)
