"""A cell of a grid: one training run, named by task, model and seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rmaat.compare.grid.models import with_model
from rmaat.compare.grid.presets import MODEL_GROUPS, Grid, shortened
from rmaat.compare.grid.variants import Variant, parse_variant
from rmaat.errors import UserError, did_you_mean
from rmaat.tasks import TASKS
from rmaat.training.config import RunConfig

Key = tuple[str, str, int]
"""Task, label of the model, seed."""

NO_RESULT = frozenset({"data_dir", "output_dir", "overwrite", "resume", "wandb", "wandb_run_name"})
"""Settings that say where things are, not what is computed."""


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        task: name of the task.
        model: label of the model or variant.
        seed: the run's seed.
        preset: name of the grid that the settings come from.
        base: the grid's settings for the task, alike for all models.
        settings: those of the run config that are not at their defaults, the output folder excepted.
    """

    task: str
    model: str
    seed: int
    preset: str
    base: dict[str, Any]
    settings: dict[str, Any]

    @property
    def key(self) -> Key:
        """What names the cell within a folder of results."""
        return self.task, self.model, self.seed

    def __str__(self) -> str:
        return f"{self.task} {self.model} seed {self.seed}"

    def folder(self, output: Path) -> Path:
        """The run's folder under the grid's."""
        model = quote(self.model.replace("[", "-").replace("]", ""), safe="=,")
        return output / "cells" / self.task / model / f"seed-{self.seed}"

    def run_config(self, folder: Path) -> RunConfig:
        """The run, checked.

        Raises:
            UserError: naming the cell, where its settings contradict themselves.
        """
        try:
            run = RunConfig(**self.settings, output_dir=str(folder))
            run.check()
        except UserError as mistake:
            raise UserError(f"{self.model} on {self.task}: {mistake}") from mistake
        return run


def computed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings on which a run's results depend."""
    return {name: value for name, value in settings.items() if name not in NO_RESULT}


def expand(texts: Iterable[str]) -> list[Variant]:
    """The variants that the texts and groups among them name, each once; raises what `parse_variant` raises."""
    members = [member for text in texts for member in MODEL_GROUPS.get(text, (text,))]
    variants = [parse_variant(member, MODEL_GROUPS) for member in members]
    return list({str(variant): variant for variant in variants}.values())


def make_cells(
    grid: Grid,
    tasks: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    seeds: int | None = None,
    data_dir: str | None = None,
    max_steps: int | None = None,
) -> list[Cell]:
    """The cells of a grid, all of the first seed first, so that a grid cut short has whole rows.

    Args:
        grid: a preset.
        tasks: those of the grid to run; None means all.
        models: models, variants `name[key=value,...]` or groups of them; None means the grid's.
        seeds: how many, from 0 on; None means the grid's.
        data_dir: folder of the data; None means the environment's.
        max_steps: steps of each run; None means the grid's.

    Raises:
        UserError: for an empty grid, an unknown task or model, and settings that do not fit together.
    """
    tasks = list(dict.fromkeys(grid.tasks if tasks is None else tasks))
    variants = expand(grid.models if models is None else models)
    seeds = grid.seeds if seeds is None else seeds
    for name, count in (("tasks", len(tasks)), ("models", len(variants)), ("seeds", seeds)):
        if count < 1:
            raise UserError(f"a grid with nothing in it: --{name} asks for none; give at least one")
    if max_steps is not None and max_steps < 1:
        raise UserError(f"--max_steps must be >= 1, not {max_steps}")
    for task in tasks:
        if task not in TASKS:
            raise UserError(f"unknown task '{task}'; {did_you_mean(task, TASKS.names())}")
        if task not in grid.tasks:
            raise UserError(f"the preset '{grid.name}' has no settings for {task}; {did_you_mean(task, grid.tasks)}")
    bases = {task: shortened(grid.tasks[task], max_steps) for task in tasks}
    # A cell runs in whatever folder its grid is resumed from, or its machine of a cluster.
    data_dir = None if data_dir is None else str(Path(data_dir).resolve())
    cells = [
        Cell(
            task,
            str(variant),
            seed,
            grid.name,
            bases[task],
            {
                **with_model({**bases[task], "dataset": task, "data_dir": data_dir}, variant.model),
                **dict(variant.changes),
                "seed": seed,
            },
        )
        for seed in range(seeds)
        for task in tasks
        for variant in variants
    ]
    for cell in cells:
        if cell.seed == 0:
            cell.run_config(Path())
    return cells
