"""Profile a training step at the reference shape, and sum its time by kind of operator.

    python benchmarks/profile_step.py --output results/profile [--methods replay full rmt] [--bf16]

PyTorch's profiler records one step on a CPU after untimed ones. The time of an operator excludes
the operators that it calls. All kernels that the compiler has fused are one kind. `other` includes
the profiler's own time. Prints a table, writes profile.json.
"""

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config
from torch.profiler import ProfilerActivity, profile, record_function

from rmaat.bench.methods import METHODS
from rmaat.bench.models import build
from rmaat.bench.shape import Shape
from rmaat.machine.provenance import provenance
from rmaat.models.segment import SegmentEncoder

DRAWING = "drawing dropout masks"
FUSED = "fused by the compiler"
KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "mkldnn_linear"),
    "softmax attention": (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
    "GELU": ("gelu", "gelu_backward"),
    "layer normalisation": ("native_layer_norm", "native_layer_norm_backward"),
    "feature maps": ("elu", "elu_", "exp", "clamp_max_", "clamp_max"),
    "masks and dropout": ("masked_fill", "masked_fill_", "where", "mul", "mul_"),
    "sums": ("add", "add_", "sum", "addcmul_", "sub"),
    "division": ("div", "div_"),
    "copies": ("copy_", "cat", "fill_", "zero_"),
    DRAWING: (DRAWING,),
    FUSED: (FUSED,),
}
KIND_OF = {operator: kind for kind, operators in KINDS.items() for operator in operators}


def profile_method(method: str, shape: Shape) -> dict[str, Any]:
    """Return the seconds by kind, and those of the largest operators of the kind `other`."""
    step = build(METHODS[method], shape, "cpu")
    for module in step.model.modules():
        # Drawing masks uses the same operators as other kinds, so record it under its own name.
        if isinstance(module, SegmentEncoder):
            module.dropout_masks = record_function(DRAWING)(module.dropout_masks)
    for _ in range(2):
        step(shape.tokens)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step(shape.tokens)
    by_kind: Counter[str] = Counter()
    unnamed: Counter[str] = Counter()
    for row in recorded.key_averages():
        name = FUSED if "cpp_fused" in row.key else row.key.removeprefix("aten::")
        seconds = row.self_cpu_time_total / 1e6
        by_kind[KIND_OF.get(name, "other")] += seconds
        if name not in KIND_OF:
            unnamed[name] += seconds
    return {"method": method, "seconds": dict(by_kind.most_common()), "other": dict(unnamed.most_common(8))}


def main() -> None:
    """Profile all methods, print the table, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["replay", "full", "rmt"])
    parser.add_argument("--torch_compile", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()
    torch._inductor.config.cpp.enable_kernel_profile = True
    shape = Shape(torch_compile=arguments.torch_compile, bf16=arguments.bf16)
    rows = [profile_method(method, shape) for method in arguments.methods]
    kinds = [kind for kind in (*KINDS, "other") if any(kind in row["seconds"] for row in rows)]
    print("| kind | " + " | ".join(row["method"] for row in rows) + " |")
    print("|---|" + "---:|" * len(rows))
    for kind in kinds:
        shares = [row["seconds"].get(kind, 0) / sum(row["seconds"].values()) for row in rows]
        print(f"| {kind} | " + " | ".join(f"{100 * share:.0f}%" for share in shares) + " |")
    print("| seconds | " + " | ".join(f"{sum(row['seconds'].values()):.2f}" for row in rows) + " |")
    arguments.output.mkdir(parents=True, exist_ok=True)
    result = {
        **provenance(),
        "threads": torch.get_num_threads(),
        "shape": asdict(shape),
        "rows": rows,
    }
    (arguments.output / "profile.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
