"""Files of simulations, factors and sweeps (Parquet) and of the model (JSON).

States, drive and factors have no unit. The unit of time is part of the column name `time_s`.
"""

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
    """Write the model's fields as JSON, which `MacroModel.from_dict` reads."""
    write_json(path, model.to_dict())


def write_traces(simulation: Simulation, path: Path) -> None:
    """Write the traces with one row per time.

    The columns are `time_s`, then `drive_n`, `pre_i` and `post_j` of each neuron, then
    `synapse_i_j`, `short_term_i_j` and `long_term_i_j` of each pair of neurons.
    """
    columns: dict[str, Array] = {"time_s": simulation.time}
    for name in ("drive", "pre", "post", "synapse", "short_term", "long_term"):
        values = getattr(simulation, name)
        for index in np.ndindex(values.shape[1:]):
            columns["_".join([name, *map(str, index)])] = values[:, *index]
    _write(columns, path)


def write_factors(model: MacroModel, totals: Sequence[int], path: Path) -> None:
    """Write the retention factors, with one row for each T in `totals` and segment t <= T.

    The columns are `total`, `segment`, `ltp` and `plateau`.
    """
    columns = {
        "total": np.repeat(totals, totals),
        "segment": np.concatenate([np.arange(1, total + 1) for total in totals]),
    }
    for schedule in ("ltp", "plateau"):
        columns[schedule] = np.concatenate([retention_factors(total, schedule, model) for total in totals])
    _write(columns, path)


def write_sweep(name: str, points: Sequence[SweepPoint], total: int, path: Path) -> None:
    """Write the factors of a sweep with one row per value of the parameter `name`.

    The columns are the parameter, `refusal` and `factor_1` ... `factor_T` of T = `total` segments.
    `refusal` is empty if the value has factors; otherwise it is the error message and the factors
    are null.
    """
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
