"""Time astromorphic attention and PyTorch's softmax attention, forward and backward.

    python benchmarks/attention.py --output results/attention [--compile] [--bf16] [--device cpu]

The inputs are those of one layer (batch 1, 4 heads of 32 features) without projections. R is an
input too, because a model computes it once for all segments. The two operators take turns, so that
a disturbance affects both. Prints a table and the crossover: the length above which astromorphic
attention is faster. Writes attention.json and attention.png.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rmaat.machine.provenance import provenance
from rmaat.ops import astromorphic_attention

HEADS, WIDTH = 4, 32
LENGTHS = [128 * 2**i for i in range(8)]
Operator = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def astromorphic(q: Tensor, k: Tensor, v: Tensor, r: Tensor) -> Tensor:
    """Return astromorphic attention (1, H, N, d) of (1, H, N, m) inputs and R (H, N, m)."""
    return astromorphic_attention(q, k, v, r)


def softmax(q: Tensor, k: Tensor, v: Tensor, r: Tensor) -> Tensor:
    """Return softmax attention (1, H, N, d) of (1, H, N, m) inputs; R has no effect."""
    return scaled_dot_product_attention(q, k, v)


OPERATORS: dict[str, Operator] = {"astromorphic": astromorphic, "softmax": softmax}


def step(operator: Operator, inputs: tuple[Tensor, ...], grad: Tensor) -> float:
    """Return the seconds of one forward and backward pass."""
    for x in inputs:
        x.grad = None
    started = time.perf_counter()
    operator(*inputs).backward(grad)
    if grad.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(length: int, device: str, dtype: torch.dtype, compiled: bool, steps: int) -> dict[str, Any]:
    """Return the median seconds of each operator at one length, after two untimed steps."""
    generator = torch.Generator().manual_seed(length)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    inputs = tuple(draw(1, HEADS, length, WIDTH).requires_grad_() for _ in range(3))
    inputs += (draw(HEADS, length, WIDTH).requires_grad_(),)
    grad = draw(1, HEADS, length, WIDTH)
    torch.compiler.reset()
    operators = OPERATORS
    if compiled:
        operators = {name: torch.compile(f, dynamic=False) for name, f in OPERATORS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in operators}
    for _ in range(2 + steps):
        for name, operator in operators.items():
            seconds[name].append(step(operator, inputs, grad))
    return {
        "tokens": length,
        "seconds": {name: median(values[2:]) for name, values in seconds.items()},
    }


def crossover(rows: list[dict[str, Any]]) -> int | None:
    """Return the shortest length from which astromorphic attention is faster at all lengths."""
    faster = [row["seconds"]["astromorphic"] < row["seconds"]["softmax"] for row in rows]
    return next((row["tokens"] for i, row in enumerate(rows) if all(faster[i:])), None)


def draw(rows: list[dict[str, Any]], crossing: int | None, setting: str, path: Path) -> None:
    """Draw the time against the number of tokens, with the crossover."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    lengths = [row["tokens"] for row in rows]
    for name in OPERATORS:
        axes.plot(lengths, [1000 * row["seconds"][name] for row in rows], "o-", label=name)
    if crossing is not None:
        label = f"astromorphic is faster from {crossing:,}"
        axes.axvline(crossing, color="0.5", linestyle=":", label=label)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="tokens in one segment",
        ylabel="forward + backward (ms)",
        title=f"Attention, {HEADS} heads of {WIDTH}, {setting}",
    )
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.xaxis.minorticks_off()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure the operators, print the table, and write the JSON file and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for attention.json and attention.png")
    parser.add_argument("--tokens", type=int, nargs="+", default=LENGTHS, help="segment lengths")
    parser.add_argument("--steps", type=int, default=7, help="timed steps, at least 5")
    parser.add_argument("--compile", action="store_true", help="compile both operators")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 instead of float32 inputs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.steps < 5:
        parser.error("--steps must be at least 5 for a median")
    dtype = torch.bfloat16 if arguments.bf16 else torch.float32
    rows = []
    print(f"{'tokens':>8} {'astromorphic ms':>16} {'softmax ms':>12} {'softmax / astromorphic':>24}")
    for length in sorted(arguments.tokens):
        rows.append(measure(length, arguments.device, dtype, arguments.compile, arguments.steps))
        ours, theirs = (1000 * rows[-1]["seconds"][name] for name in OPERATORS)
        print(f"{length:8,} {ours:16.3f} {theirs:12.3f} {theirs / ours:24.2f}", flush=True)
    crossing = crossover(rows)
    if crossing is None:
        print("no crossover at these lengths")
    else:
        print(f"astromorphic is faster from {crossing:,} tokens")
    setting = ", ".join(
        [str(dtype).removeprefix("torch."), "compiled" if arguments.compile else "eager", arguments.device]
    )
    result = {
        **provenance(),
        "device": arguments.device,
        "dtype": str(dtype).removeprefix("torch."),
        "compiled": arguments.compile,
        "threads": torch.get_num_threads(),
        "steps": arguments.steps,
        "crossover_tokens": crossing,
        "rows": rows,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "attention.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(rows, crossing, setting, arguments.output / "attention.png")


if __name__ == "__main__":
    main()
