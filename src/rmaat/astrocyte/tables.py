"""Simulations, factors and sweeps as files: Parquet with the units in the column names, and the model as JSON."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rmaat.astrocyte.model import MacroModel
from rmaat.astrocyte.nonlinearity import Array
from rmaat.astrocyte.retention import retention_factors
from rmaat.astrocyte.simulate import Simulation
from rmaat.astrocyte.sweep import SweepPoint
from rmaat.machine.files import replacing, write_json


def write_model(model: MacroModel, path: Path) -> None:
    """The model's fields as JSON; `MacroModel.from_dict` reads them back."""
    write_json(path, model.to_dict())


def write_traces(simulation: Simulation, path: Path) -> None:
    """One row a time: time_s, then drive, pre, post by neuron and synapse, short_term, long_term by pair `_i_j`."""
    columns: dict[str, Array] = {"time_s": simulation.time}
    for name in ("drive", "pre", "post", "synapse", "short_term", "long_term"):
        values = getattr(simulation, name)
        for index in np.ndindex(values.shape[1:]):
            columns["_".join([name, *map(str, index)])] = values[:, *index]
    _write(columns, path)


def write_factors(model: MacroModel, totals: Sequence[int], path: Path) -> None:
    """One row for each T in `totals` and segment t <= T: total, segment, ltp, plateau."""
    columns = {
        "total": np.repeat(totals, totals),
        "segment": np.concatenate([np.arange(1, total + 1) for total in totals]),
    }
    for schedule in ("ltp", "plateau"):
        columns[schedule] = np.concatenate([retention_factors(total, schedule, model) for total in totals])
    _write(columns, path)


def write_sweep(name: str, points: Sequence[SweepPoint], total: int, path: Path) -> None:
    """One row a value: the parameter, refusal ("" where there is none), factor_1 ... factor_T (null where refused)."""
    columns: dict[str, object] = {
        name: [point.value for point in points],
        "refusal": [point.refusal for point in points],
    }
    rows = [
        [None] * total if point.increments is None else point.increments.factors(total).tolist() for point in points
    ]
    columns |= {f"factor_{index + 1}": list(column) for index, column in enumerate(zip(*rows, strict=True))}
    _write(columns, path)


def _write(columns: "dict[str, object] | dict[str, Array]", path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(path) as file:
        pq.write_table(pa.table(columns), file)
