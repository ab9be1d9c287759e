"""Flags and functions that the comparisons share."""

from __future__ import annotations

import operator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from rmaat.bench.methods import COMPARED, chosen
from rmaat.bench.shape import Shape
from rmaat.errors import UserError
from rmaat.settings import one_of

if TYPE_CHECKING:
    from rmaat.bench.memory import MemoryComparison
    from rmaat.bench.speed import SpeedComparison
    from rmaat.machine.tables import Table

DEVICES = ("cpu", "cuda")


def add_common_arguments(parser: ArgumentParser) -> None:
    """Declare the flags `--output`, `--methods` and `--device`."""
    width = max(map(len, COMPARED))
    methods = [f"  {name:<{width}}  {method.summary}" for name, method in COMPARED.items()]
    parser.description = "\n".join([str(parser.description).strip(), "", "methods:", *methods])
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for JSON and figure; made if missing",
    )
    parser.add_argument(
        "--methods",
        type=str,
        nargs="+",
        metavar="NAME",
        help="methods, or models of `rmaat list models` (default: all methods that are installed)",
    )
    parser.add_argument("--device", type=str | None, help="cpu or cuda (default: cuda if present)")


def device_of(name: str | None) -> str:
    """Return the named device, or the best one if the name is None.

    Raises:
        UserError: for an unknown device, and for CUDA if PyTorch sees no GPU.
    """
    import torch

    available = torch.cuda.is_available()
    if name is None:
        return "cuda" if available else "cpu"
    one_of("device", name, DEVICES)
    if name == "cuda" and not available:
        raise UserError("device cuda: PyTorch sees no CUDA device here; leave out --device")
    return name


def common_settings(arguments: Namespace) -> dict[str, Any]:
    """Return the settings of a `rmaat.bench.comparison.Comparison`.

    On a CPU each measurement has a fresh process. On CUDA none has: the allocator counts each
    measurement by itself, and a new process takes 10 s. If the flags name several lengths, the
    shape has the first one.

    Raises:
        UserError: for a wrong flag.
    """
    from rmaat.machine.processes import in_fresh_process
    from rmaat.training.compiler import check_compiler
    from rmaat.training.precision import warn_of_slow_bf16

    methods, absent = chosen(arguments.methods)
    device = device_of(arguments.device)
    sizes = {f.name: arguments[f.name] for f in fields(Shape)}
    if isinstance(sizes["tokens"], list):
        sizes["tokens"] = sizes["tokens"][0]
    shape = Shape(**sizes)
    if shape.torch_compile:
        check_compiler(device)
    if shape.bf16:
        warn_of_slow_bf16(device)
    return {
        "shape": shape,
        "methods": methods,
        "absent": absent,
        "device": device,
        "call": in_fresh_process if device == "cpu" else operator.call,
        "warm_up": arguments.warm_up,
        "steps": arguments.steps,
    }


def run_comparison(comparison: MemoryComparison | SpeedComparison, output: Path, name: str) -> Path:
    """Run a comparison, write `name`.json after every row, and return the folder."""
    from rmaat.cli.folders import writable_folder
    from rmaat.cli.progress import named_bar
    from rmaat.machine.files import write_json

    comparison.check()
    folder = writable_folder(output)
    with named_bar(comparison.pieces) as begin:
        comparison.run(begin, lambda results: write_json(folder / f"{name}.json", results))
    return folder


def print_tables(tables: list[Table], remarks: list[str]) -> None:
    """Print tables as Markdown, then one line per remark."""
    for table in tables:
        print(f"{table.markdown()}\n")
    for remark in remarks:
        print(remark)
