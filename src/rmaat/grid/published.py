"""The figures that the RMAAT paper publishes (arXiv 2601.00426, ICLR 2026) [P].

Only models and tasks that are exactly the paper's have an entry. The paper quotes some of its
baselines' accuracies from the Long Range Arena of 2020 (arXiv 2011.04006).
"""

from collections.abc import Mapping

SOURCE = "the RMAAT paper (arXiv 2601.00426)"

TASKS = ("listops", "imdb_lra", "aan", "cifar10", "pathfinder32")
"""The paper's columns: ListOps 2K, Text 4K, Retrieval 8K, Image 1K, Pathfinder 1K."""

Figures = dict[tuple[str, str], float]
"""By the model's label and the task."""


def _rows(rows: Mapping[str, tuple[float, ...]]) -> Figures:
    pairs = ((model, zip(TASKS, values, strict=True)) for model, values in rows.items())
    return {(model, task): value for model, row in pairs for task, value in row}


_ACCURACY = {
    "transformer": (36.4, 64.3, 57.5, 42.4, 71.4),
    "nystromformer": (37.2, 65.5, 79.6, 41.6, 70.9),
    "luna": (37.3, 64.6, 79.3, 47.4, 77.7),
    "rmt": (37.4, 65.0, 79.3, 54.6, 81.5),
    "rlt": (18.4, 64.8, 78.4, 55.0, 74.9),
    "rmaat": (38.9, 65.9, 83.2, 64.8, 87.1),
}
_MEMORY = {
    "transformer": (4.7, 6.7, 5.2, 7.8, 5.4),
    "rmt": (20.4, 24.0, 18.3, 22.7, 12.7),
    "rmaat": (5.2, 5.1, 3.4, 5.3, 4.7),
}
_ABLATION, _FULL = "rmaat[astro_mem=false]", "rmaat[memory_replay_backprop=false]"

FIGURES: dict[str, Figures] = {
    "accuracy": {**_rows(_ACCURACY), (_ABLATION, "imdb_lra"): 64.9, (_ABLATION, "aan"): 80.5},
    "memory": {**_rows(_MEMORY), (_FULL, "imdb_lra"): 22.0, (_FULL, "aan"): 15.0},
    "throughput": _rows({"rmt": (1.0,) * 5, "rmaat": (1.5, 1.5, 1.73, 1.3, 0.95)}),
}
"""Percent of the test part; peak GPU memory in training in GB; throughput over that of rmt."""
