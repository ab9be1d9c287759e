"""Peak memory and time of one training step against sequence length, replay beside full backpropagation.

    python benchmarks/memory.py --output results/memory

Each measurement is a fresh process: the model is built, the resident memory noted, three steps made, and the peak above that and
the median time of the last two reported. The two kinds' gradients are compared first, in this same run.
"""

import argparse
import json
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from rmaat.provenance import provenance

SEGMENT = 512
KINDS = {"replay": True, "full": False}


def build(tokens: int, replay: bool) -> Any:
    """The reference model, batch 1, float32."""
    import torch

    from rmaat import RmaatConfig, RmaatForSequenceClassification

    torch.manual_seed(0)
    config = RmaatConfig(
        num_labels=2,
        hidden_size=128,
        num_hidden_layers=4,
        intermediate_size=512,
        max_seq_len=tokens,
        num_segments=tokens // SEGMENT,
        memory_replay_backprop=replay,
        hidden_dropout_prob=0.1,
        retention_schedule="none",
        readout="running_mean",
    )
    return RmaatForSequenceClassification(config).train()


def step(model: Any, tokens: int) -> None:
    """One forward and backward pass."""
    import torch

    ids = torch.randint(0, 256, (1, tokens), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    model.zero_grad()
    model(ids, labels=torch.tensor([1])).loss.backward()


def measure(kind: str, tokens: int) -> dict[str, Any]:
    """Peak bytes above the built model, and seconds a step."""
    import psutil

    model = build(tokens, KINDS[kind])
    before = psutil.Process().memory_info().rss
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        step(model, tokens)
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"kind": kind, "tokens": tokens, "peak_bytes": peak - before, "seconds": round(median(seconds[1:]), 3)}


def gradients_agree(tokens: int = 4 * SEGMENT) -> float:
    """The largest relative difference of a parameter's gradient between the two kinds."""
    found = []
    for replay in KINDS.values():
        model = build(tokens, replay)
        step(model, tokens)
        found.append([p.grad for p in model.parameters()])
    return max(((a - b).norm() / b.norm()).item() for a, b in zip(*found, strict=True))


def in_fresh_process(function: Any, *arguments: Any) -> Any:
    """The function's result from a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Memory against tokens, log-log, one line a kind."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for kind, label in (("full", "full backpropagation"), ("replay", "replay (AMRB)")):
        points = [(row["tokens"], row["peak_bytes"] / 2**20) for row in rows if row["kind"] == kind]
        axes.plot(*zip(*points, strict=True), "o-", label=label)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="tokens in one sequence",
        ylabel="peak memory of a training step (MiB)",
        title=f"Memory against length (4 layers, width 128, segments of {SEGMENT})",
    )
    ticks = sorted({row["tokens"] for row in rows})
    axes.set_xticks(ticks, [f"{tokens // 1024}K" for tokens in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure, print, write JSON and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for memory.json and memory.png")
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 16384, 65536, 262144], help="lengths of replay")
    parser.add_argument("--longest_full", type=int, default=65536, help="the longest sequence for full backpropagation")
    arguments = parser.parse_args()
    difference = in_fresh_process(gradients_agree)
    if not difference < 1e-4:
        raise SystemExit(f"gradients differ by {difference:.1e}: nothing is reported")
    rows = []
    for tokens in arguments.tokens:
        for kind in KINDS:
            if kind == "replay" or tokens <= arguments.longest_full:
                rows.append(in_fresh_process(measure, kind, tokens))
                mebibytes = rows[-1]["peak_bytes"] / 2**20
                print(f"{kind:7} {tokens:8,} tokens  {mebibytes:8.1f} MiB  {rows[-1]['seconds']:8.3f} s", flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    found = {**provenance(), "largest_gradient_difference": difference, "rows": rows}
    (arguments.output / "memory.json").write_text(json.dumps(found, indent=2) + "\n")
    draw(rows, arguments.output / "memory.png")


if __name__ == "__main__":
    main()
