"""What the comparisons have in common: which methods, on what, called how, reported where."""

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rmaat.compare.gate import Verdict, judge
from rmaat.compare.processes import Call
from rmaat.compare.shapes import Shape
from rmaat.machine.provenance import provenance

ALLOCATORS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "PYTORCH_")
"""What begins the names of the variables that set how memory is allocated: they move a peak by more than twice."""

Begin = Callable[[str], None]
"""Called with what is about to be done, before each piece of work."""


@dataclass(frozen=True)
class Setting:
    """What a comparison is made of.

    Attributes:
        shape: model and batch.
        methods: names, in the order of the tables.
        absent: names of methods left out, and why.
        device: 'cpu' or 'cuda'.
        call: how each measurement is called.
        begin: told of each piece of work.
    """

    shape: Shape
    methods: tuple[str, ...]
    absent: dict[str, str]
    device: str
    call: Call
    begin: Begin

    def judge(self, method: str) -> Verdict:
        """Return the verdict on a method's gradients."""
        self.begin(f"gradients of {method}")
        verdict: Verdict = self.call(judge, method, self.shape, self.device)
        return verdict

    def header(self, verdicts: Iterable[Verdict]) -> dict[str, Any]:
        """Where the figures come from, for the JSON file."""
        import torch

        return {
            **provenance(),
            "threads": torch.get_num_threads(),
            "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(ALLOCATORS)},
            "device": self.device,
            "shape": asdict(self.shape),
            "gradients": [asdict(verdict) for verdict in verdicts],
            "absent": self.absent,
        }
