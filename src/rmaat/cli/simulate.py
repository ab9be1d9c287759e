"""Simulate the neuron-astrocyte macro model: traces, figures and retention factors.

Sources of parameters: [P] the RMAAT paper (arXiv 2601.00426), [K] Kozachkov et al. (arXiv
2311.08135), [C] this project's choice.
"""

import math
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from rmaat.astrocyte.model import LatchWarning, MacroModel
from rmaat.cli.folders import writable_folder
from rmaat.cli.progress import count_bar
from rmaat.errors import UserError
from rmaat.terminal import console
from rmaat.values import Range, checked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rmaat.astrocyte.increments import Increments
    from rmaat.astrocyte.nonlinearity import Array
    from rmaat.astrocyte.simulate import Simulation
    from rmaat.astrocyte.sweep import SweepPoint

DISTANCE_FACTOR = 4.0
"""Factor by which the short-term map divides and multiplies the synapses' distances."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat simulate`, which include the fields of the macro model."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=str,
        required=True,
        help="folder for traces and figures; made if missing",
    )
    parser.add_argument("--cycles", type=int, default=16, help="number of cycles to simulate, >= 1")
    parser.add_argument(
        "--samples_per_cycle",
        type=int,
        default=200,
        help="number of times per cycle in the traces, >= 1",
    )
    parser.add_argument(
        "--sweep",
        metavar="NAME=START:STOP:COUNT",
        help="also vary one parameter, such as tau_long=10:120:12",
    )
    parser.add_argument(
        "--sweep_segments",
        type=int,
        default=8,
        help="number of segments T of the swept factors, >= 1",
    )
    parser.add_class_arguments(MacroModel)


def run(arguments: Namespace) -> None:
    """Simulate, write all files to `arguments.output`, and print a summary.

    Raises:
        UserError: before any simulation, for a wrong parameter, a wrong sweep and a folder that
            cannot be written to; after writing the traces and their figures, for a model without
            retention factors.
    """
    from rmaat.astrocyte import figures
    from rmaat.astrocyte.increments import retention_increments
    from rmaat.astrocyte.simulate import simulate
    from rmaat.astrocyte.sweep import parse_sweep
    from rmaat.astrocyte.tables import write_factors, write_model, write_sweep, write_traces

    with warnings.catch_warnings(record=True) as model_warnings:
        warnings.simplefilter("always")
        model = MacroModel(**{field.name: getattr(arguments, field.name) for field in fields(MacroModel)})
    for warning in model_warnings:
        print(f"rmaat: warning: {warning.message}", file=sys.stderr)
    sweep = parse_sweep(arguments.sweep) if arguments.sweep else None
    checked("--sweep_segments", arguments.sweep_segments, Annotated[int, Range(1, 100_000)])
    folder = writable_folder(Path(arguments.output))

    def save(name: str, figure: "Figure") -> None:
        figures.write(figure, folder / f"{name}.png")

    simulation = simulate(model, arguments.cycles, samples_per_cycle=arguments.samples_per_cycle)
    write_model(model, folder / "model.json")
    write_traces(simulation, folder / "traces.parquet")
    save("traces", figures.traces(simulation))
    # How far the short-term process spreads depends on the distances, so show three scales.
    near = _rescaled(model, arguments.cycles, 1 / DISTANCE_FACTOR)
    far = _rescaled(model, arguments.cycles, DISTANCE_FACTOR)
    columns = (
        (f"near: distances ÷ {DISTANCE_FACTOR:g}", near),
        ("distances unchanged", simulation),
        (f"far: distances × {DISTANCE_FACTOR:g}", far),
    )
    save("short_term_map", figures.short_term_map(columns))
    if sweep:
        name, values = sweep
        points = _sweep_points(model, name, values)
        write_sweep(name, points, arguments.sweep_segments, folder / f"sweep_{name}.parquet")
        save(f"sweep_{name}", figures.parameter_sweep(name, points, arguments.sweep_segments))
    try:
        increments = retention_increments(model)
    except UserError as error:
        raise UserError(f"{error}; traces and their figures are in {folder}") from None
    write_factors(model, figures.TOTALS, folder / "factors.parquet")
    save("long_term", figures.long_term(simulation, increments))
    save("memory", figures.memory(model))
    _summarise(model, increments, folder)


def _rescaled(model: MacroModel, cycles: int, factor: float) -> "Simulation":
    """Return the simulation of the model with all distances multiplied by `factor`."""
    from rmaat.astrocyte.simulate import simulate

    # The user has seen the warning about the original model.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatchWarning)
        return simulate(model.changed("distance_scale", model.distance_scale / factor), cycles)


def _sweep_points(model: MacroModel, name: str, values: "Array") -> "list[SweepPoint]":
    from rmaat.astrocyte.sweep import sweep

    with count_bar(f"sweep of {name}", len(values)) as progress:
        return sweep(model, name, values, lambda: progress(1))


def _summarise(model: MacroModel, increments: "Increments", folder: Path) -> None:
    from rich.table import Table

    from rmaat.astrocyte import figures, retention_factors

    rows = max(figures.TOTALS)
    columns = {f"T = {total}": increments.factors(total) for total in figures.TOTALS}
    columns[f"plateau, T = {rows}"] = retention_factors(rows, "plateau", model)
    table = Table(title="Gains of the long-term process and retention factors RF(t, T)")
    for name in ("segment t", "gain", *columns):
        table.add_column(name, justify="right")
    for index, gain in enumerate(increments.log(rows)):
        cells = [f"{factors[index]:.4f}" if index < len(factors) else "" for factors in columns.values()]
        table.add_row(str(index + 1), f"{math.exp(gain):.3e}", *cells)
    output = console()
    output.print(table)
    output.print(f"c = {model.decay_per_cycle:.4g}; coupling {model.coupling:g}, bound {model.coupling_bound:.4g}")
    output.print(f"written to {folder}")
