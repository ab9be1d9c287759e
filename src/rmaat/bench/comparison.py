"""What comparisons of memory and of speed have in common."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rmaat.bench.gradient_check import GradientCheck, check_gradients
from rmaat.bench.shape import Shape
from rmaat.machine.processes import OutOfMemoryError
from rmaat.machine.provenance import provenance

ALLOCATORS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "PYTORCH_")
"""Prefixes of environment variables for the allocators, which can more than double a peak."""

Begin = Callable[[str], None]
"""Called with the name of each piece of work before it begins."""

Save = Callable[[dict[str, Any]], None]
"""Called with the JSON of all results after each row, so an interrupted comparison has them."""


@dataclass(kw_only=True)
class Row:
    """The figures of one method; None stands for those that could not be measured.

    Attributes:
        method: its name.
        tokens: that a step reads: of one sequence, for speed of the whole batch.
        parameters: of the model.
        step_seconds: of each timed step, for speed one tuple a round.
        seconds: the median of all timed steps.
        failure: why there are no figures, or None.
    """

    method: str
    tokens: int
    parameters: int | None = None
    step_seconds: Sequence[Any] = ()
    seconds: float | None = None
    failure: str | None = None


@dataclass(kw_only=True)
class Comparison:
    """The methods to measure, and the results so far.

    Attributes:
        shape: model and batch.
        methods: names, in the order of the tables.
        absent: the names of methods left out, and why.
        device: 'cpu' or 'cuda'.
        call: how each measurement is called: (function, *arguments) -> the function's result.
        warm_up: untimed steps of each measurement.
        steps: timed steps of each measurement.
        checks: of the methods' gradients, by name.
        rows: the results.
    """

    shape: Shape
    methods: tuple[str, ...]
    absent: dict[str, str]
    device: str
    call: Callable[..., Any]
    warm_up: int
    steps: int
    checks: dict[str, GradientCheck] = field(default_factory=dict, init=False)
    rows: list[Any] = field(default_factory=list, init=False)

    def passes(self, name: str, begin: Begin) -> bool:
        """Return whether a method's gradients are right; they are checked at the first call."""
        if name not in self.checks:
            begin(f"gradients of {name}")
            self.checks[name] = self.call(check_gradients, name, self.shape, self.device)
        return self.checks[name].refusal is None

    def attempt(self, function: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
        """Return the function's result and None, or None and the message if memory ran out."""
        try:
            return self.call(function, *arguments), None
        except OutOfMemoryError as failure:
            return None, str(failure)

    def to_json(self) -> dict[str, Any]:
        """Return the circumstances of the comparison, and the results, as they are stored."""
        import torch

        environment = sorted(os.environ.items())
        return {
            **provenance(),
            "threads": torch.get_num_threads(),
            "environment": {k: value for k, value in environment if k.startswith(ALLOCATORS)},
            "device": self.device,
            "shape": asdict(self.shape),
            "gradients": [asdict(check) for check in self.checks.values()],
            "absent": self.absent,
            "rows": [asdict(row) for row in self.rows],
        }

    def unreported(self) -> list[str]:
        """Return a line for each method that is not in the tables."""
        refused = [check for check in self.checks.values() if check.refusal is not None]
        return [
            *(f"{check.method}: not reported, {check.refusal}" for check in refused),
            *(f"{name}: not run, {reason}" for name, reason in self.absent.items()),
        ]
