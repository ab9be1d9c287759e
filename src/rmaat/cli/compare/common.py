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
from rmaat.values import OneOf

if TYPE_CHECKING:
    from rmaat.bench.comparison import Comparison
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
        help="folder of the results; made if missing",
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
    OneOf(DEVICES).check("device", name)
    if name == "cuda" and not available:
        raise UserError("device cuda: PyTorch sees no CUDA device here; leave out --device")
    return name


def run_comparison(arguments: Namespace, name: str, **settings: Any) -> Comparison:
    """Run a comparison, and write `name`.json to the output folder after every row.

    On a CPU each measurement has a fresh process. On CUDA none has: the allocator counts each
    measurement by itself, and a new process takes 10 s.

    Args:
        arguments: the parsed flags.
        name: name of the JSON file.
        settings: further settings of the comparison.

    Raises:
        UserError: for a wrong flag.
    """
    methods, absent = chosen(arguments.methods)
    device = device_of(arguments.device)
    from rmaat.bench.comparison import Comparison
    from rmaat.cli.folders import writable_folder
    from rmaat.cli.progress import named_bar
    from rmaat.machine.files import write_json
    from rmaat.machine.processes import in_fresh_process
    from rmaat.training.compiler import check_compiler
    from rmaat.training.precision import warn_of_slow_bf16

    tokens = arguments.tokens
    tokens = tuple(sorted(set(tokens))) if isinstance(tokens, list) else (tokens,)
    sizes = {f.name: arguments[f.name] for f in fields(Shape) if f.name != "tokens"}
    shape = Shape(**sizes, tokens=tokens[0] if tokens else Shape.tokens)
    if shape.torch_compile:
        check_compiler(device)
    if shape.bf16:
        warn_of_slow_bf16(device)
    comparison = Comparison(
        shape=shape,
        tokens=tokens,
        methods=methods,
        absent=absent,
        device=device,
        call=in_fresh_process if device == "cpu" else operator.call,
        warm_up=arguments.warm_up,
        steps=arguments.steps,
        **settings,
    )
    comparison.check()
    file = writable_folder(arguments.output) / f"{name}.json"
    with named_bar(comparison.pieces) as begin:
        comparison.run(begin, lambda results: write_json(file, results))
    return comparison


def print_tables(tables: list[Table], remarks: list[str]) -> None:
    """Print tables as Markdown, then one line per remark."""
    for table in tables:
        print(f"{table.markdown()}\n")
    for remark in remarks:
        print(remark)
