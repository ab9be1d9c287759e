"""Compare two ways to call a module with other parameters, in whole training steps.

    python benchmarks/functional_call.py --output results/functional_call [--pairs 10]

`swap` is `rmaat.models.functional.FunctionalModule`. `functional_call` is the same class with
`torch.func.functional_call`. Both take turns on one model in one process. Steps have no optimiser,
so a difference weighs a little more than in training. Run it on a machine
without other work. Prints a Markdown table of medians, writes functional_call.json.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from rmaat.backprop import Tensors
from rmaat.bench.methods import METHODS
from rmaat.bench.models import build
from rmaat.bench.shape import Shape
from rmaat.machine.provenance import provenance
from rmaat.models import recurrent
from rmaat.models.functional import CallLock, FunctionalModule


class FunctionalCall:
    """`FunctionalModule` with `torch.func.functional_call`."""

    def __init__(self, module: nn.Module, lock: CallLock) -> None:
        self._module = module
        self._lock = lock
        self._parts = list(module.named_modules(remove_duplicate=False))
        named = dict(module.named_parameters(remove_duplicate=False))
        self._names = tuple(named)
        self.parameters = tuple(named.values())

    def __call__(self, parameters: Tensors, *args: Any) -> Any:
        """Return the module's result with `parameters` in the place of `self.parameters`."""
        with self._lock:
            # Make the same checks as FunctionalModule, so that their time is part of both.
            names = tuple(name for name, _ in self._module.named_parameters(remove_duplicate=False))
            assert names == self._names
            assert list(self._module.named_modules(remove_duplicate=False)) == self._parts
            named = dict(zip(self._names, parameters, strict=True))
            return functional_call(self._module, named, args, tie_weights=False)


WAYS: dict[str, type] = {"swap": FunctionalModule, "functional_call": FunctionalCall}


@contextmanager
def segment_calls(way: str) -> Iterator[None]:
    """Make models call their segment step in this way."""
    original = recurrent.FunctionalModule
    recurrent.FunctionalModule = WAYS[way]  # type: ignore[misc]
    try:
        yield
    finally:
        recurrent.FunctionalModule = original  # type: ignore[misc]


def measure(method: str, shape: Shape, pairs: int) -> dict[str, Any]:
    """Return the seconds of each step by both ways, their medians, and the median of the ratios."""
    training_step = build(METHODS[method], shape, "cpu")
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for pair in range(-1, pairs):
        # Alternate which way comes first, so that the order favours neither.
        for way in list(WAYS)[:: 1 if pair % 2 else -1]:
            with segment_calls(way):
                started = time.perf_counter()
                training_step(shape.tokens)
                # The first pair is a warm-up.
                if pair >= 0:
                    seconds[way].append(time.perf_counter() - started)
    ratios = [b / a for a, b in zip(seconds["swap"], seconds["functional_call"], strict=True)]
    return {
        "method": method,
        "shape": asdict(shape),
        "step_seconds": seconds,
        "median_seconds": {way: median(steps) for way, steps in seconds.items()},
        "median_ratio": median(ratios),
    }


def main() -> None:
    """Measure all methods and batches, print the table, and write the JSON file."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the JSON file")
    parser.add_argument("--methods", nargs="+", default=["replay", "full"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=Shape.tokens)
    parser.add_argument("--pairs", type=int, default=10, help="timed steps of each way")
    arguments = parser.parse_args()
    rows = []
    print("| method | batch | swap s | functional_call s | functional_call over swap |")
    print("|---|---|---|---|---|")
    for method in arguments.methods:
        for batch in arguments.batches:
            row = measure(method, Shape(tokens=arguments.tokens, batch=batch), arguments.pairs)
            rows.append(row)
            medians = " | ".join(f"{x:.3f}" for x in row["median_seconds"].values())
            print(f"| {method} | {batch} | {medians} | {row['median_ratio']:.3f} |", flush=True)
    result = {**provenance(), "threads": torch.get_num_threads(), "rows": rows}
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "functional_call.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
