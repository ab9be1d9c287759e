"""Flags and steps that the comparisons of memory and speed share."""

from __future__ import annotations

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
    from rmaat.bench.tables import Listing

DEVICES = ("cpu", "cuda")


def add_common_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of output, methods and device."""
    summaries = "; ".join(f"{name}: {method.summary}" for name, method in COMPARED.items())
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
        help="default: all of these whose packages are installed; any model of `rmaat list models` "
        f"can be named too; {summaries}",
    )
    parser.add_argument("--device", type=str | None, help="cpu or cuda (default: cuda if present)")


def device_of(asked: str | None) -> str:
    """Return the device asked for, or by default the best; raises `UserError` if it is missing."""
    import torch

    available = torch.cuda.is_available()
    if asked is None:
        return "cuda" if available else "cpu"
    one_of("device", asked, DEVICES)
    if asked == "cuda" and not available:
        raise UserError("device cuda: PyTorch sees no CUDA device here; leave out --device")
    return asked


def common_settings(arguments: Namespace) -> dict[str, Any]:
    """Return the settings of a `rmaat.bench.comparison.Comparison`, of its first length if many."""
    from rmaat.bench.processes import in_fresh_process, in_this_process
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
        "call": in_this_process if device == "cuda" else in_fresh_process,
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


def print_tables(listings: list[Listing], remarks: list[str]) -> None:
    """Print tables, then a line for each remark."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, soft_wrap=True)
    # Cells cut short to fit a narrow or absent terminal would hide figures.
    console.width = max(console.width, *(_width(listing) for listing in listings))
    for listing in listings:
        table = Table(title=listing.title, box=None, title_justify="left", pad_edge=False)
        for place, heading in enumerate(listing.headings):
            table.add_column(heading, justify="right" if place else "left", no_wrap=True)
        for row in listing.rows:
            table.add_row(*row)
        console.print(table)
        console.print()
    for remark in remarks:
        console.print(remark)


def _width(listing: Listing) -> int:
    columns = zip(listing.headings, *listing.rows, strict=True)
    return sum(2 + max(map(len, column)) for column in columns)
