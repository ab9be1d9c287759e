"""Flags and steps that the comparisons of memory and speed share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from rmaat.compare.methods import METHODS, chosen
from rmaat.compare.shapes import Shape
from rmaat.errors import UserError
from rmaat.settings import one_of

if TYPE_CHECKING:
    from rmaat.compare.run import Setting
    from rmaat.compare.tables import Listing

DEVICES = ("cpu", "cuda")


def add_common_arguments(parser: ArgumentParser) -> None:
    """The flags of output, methods and device."""
    lines = "; ".join(f"{name}: {METHODS[name].line}" for name in METHODS.names())
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for JSON and figure; made where missing"
    )
    parser.add_argument(
        "--methods",
        type=str,
        nargs="+",
        metavar="NAME",
        help=f"all whose packages are installed by default; {lines}",
    )
    parser.add_argument("--device", type=str | None, help="cpu or cuda (default: cuda where there is one)")


def shape_of(arguments: Namespace) -> Shape:
    """The shape from its flags; where --tokens is a list, its first."""
    given = {f.name: arguments[f.name] for f in fields(Shape)}
    if isinstance(given["tokens"], list):
        given["tokens"] = given["tokens"][0]
    return Shape(**given)


def device_of(asked: str | None) -> str:
    """The device asked for, or the best there is; raises `UserError` for one that is not there."""
    import torch

    available = torch.cuda.is_available()
    if asked is None:
        return "cuda" if available else "cpu"
    one_of("device", asked, DEVICES)
    if asked == "cuda" and not available:
        raise UserError("device cuda: PyTorch sees no CUDA device here; leave --device out, or say cpu")
    return asked


def setting_of(arguments: Namespace, begin: Callable[[str], None]) -> Setting:
    """What both comparisons are made of."""
    from rmaat.compare.processes import in_fresh_process, in_this_process
    from rmaat.compare.run import Setting
    from rmaat.training.compiler import check_compiler
    from rmaat.training.precision import warn_of_slow_bf16

    methods, absent = chosen(arguments.methods)
    shape, device = shape_of(arguments), device_of(arguments.device)
    if shape.torch_compile:
        check_compiler(device)
    if shape.bf16:
        warn_of_slow_bf16(device)
    call = in_this_process if device == "cuda" else in_fresh_process
    return Setting(shape, methods, absent, device, call, begin)


class Bar:
    """Progress of named pieces of work, see `named_bar`; before it is shown nothing happens."""

    def __init__(self) -> None:
        self._advance: Callable[[str], None] | None = None

    def begin(self, what: str) -> None:
        """Show what is being done now."""
        if self._advance is not None:
            self._advance(what)

    @contextmanager
    def shown(self, pieces: int) -> Iterator[None]:
        """Show the bar over so many pieces of work."""
        from rmaat.cli.progress import named_bar

        with named_bar(pieces) as self._advance:
            yield
        self._advance = None


def print_tables(listings: list[Listing], remarks: list[str]) -> None:
    """Tables, then one line a remark."""
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
