"""What comparisons of memory and of speed have in common."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rmaat.bench.gradient_check import GradientCheck, check_gradients
from rmaat.bench.processes import Call, OutOfMemoryError
from rmaat.bench.shape import Shape
from rmaat.machine.provenance import provenance

ALLOCATORS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "PYTORCH_")
"""Prefixes of environment variables for the allocators, which can more than double a peak."""

Begin = Callable[[str], None]
"""Called with the name of each piece of work before it begins."""

Save = Callable[[dict[str, Any]], None]
"""Called with the JSON of all results after each row, so an interrupted comparison has them."""


@dataclass(kw_only=True)
class Comparison:
    """The methods to measure, and the results so far.

    Attributes:
        shape: model and batch.
        methods: names, in the order of the tables.
        absent: the names of methods left out, and why.
        device: 'cpu' or 'cuda'.
        call: how each measurement is called.
        warm_up: untimed steps of each measurement.
        steps: timed steps of each measurement.
        checks: of the methods' gradients, by name.
    """

    shape: Shape
    methods: tuple[str, ...]
    absent: dict[str, str]
    device: str
    call: Call
    warm_up: int
    steps: int
    checks: dict[str, GradientCheck] = field(default_factory=dict, init=False)

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
        """Return the circumstances of the comparison, and the checks, as they are stored."""
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
        }
