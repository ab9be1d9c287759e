"""The cells of a grid: one training run each, named by task, variant and seed.

A variant is a model, or a model with some settings changed: `name` or `name[key=value,...]`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jsonargparse import ArgumentParser

from rmaat.errors import UserError, did_you_mean
from rmaat.grid.presets import MODEL_GROUPS, Grid, Settings, shortened
from rmaat.models.size import count_parameters, match_parameters
from rmaat.presets import MODELS, resolve
from rmaat.problems import SINGLE_LABEL
from rmaat.tasks import TASKS
from rmaat.training.config import RunConfig, check_key
from rmaat.training.data import RunData
from rmaat.values import flag_mistake

GRAMMAR = re.compile(r"(?P<model>[^\[\]]+)(?:\[(?P<changes>[^\[\]]+)\])?")

PLACES = frozenset({"data_dir", "output_dir", "overwrite", "resume"})
SET_BY_THE_GRID = PLACES | {"recipe", "dataset", "seed", "model", "objective"}
"""Settings that a variant cannot change."""

WITHOUT_EFFECT = PLACES | {"wandb", "wandb_run_name"}
"""Settings on which a run's results do not depend."""

REFERENCE = "rmaat"
"""The model whose number of parameters the others match by their feed-forward width."""

MOST_SEEDS = 1000

CELLS = "cells"
"""The folder of all cells within the grid's."""

Key = tuple[str, str, int]
"""Task, label of the variant, seed."""


@dataclass(frozen=True)
class Variant:
    """A model and the settings changed in it, sorted by name.

    `str(variant)` is its label, such as `rmaat[astro_mem=false]`; equal variants have equal labels.
    """

    model: str
    changes: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        texts = ((key, v if isinstance(v, str) else json.dumps(v)) for key, v in self.changes)
        changes = ",".join(f"{key}={text}" for key, text in texts)
        return f"{self.model}[{changes}]" if changes else self.model


def parse_variant(text: str) -> Variant:
    """Read a variant.

    Raises:
        UserError: for another form, an unknown model (naming the nearest model or group), an
            unknown setting, a value of another type than the setting's, or a setting that the grid
            itself sets.
    """
    match = GRAMMAR.fullmatch(text.strip())
    if match is None:
        raise UserError(f"'{text}' is not a model; write name or name[key=value,...]")
    model, changes = match["model"], match["changes"]
    if model not in MODELS:
        nearest = did_you_mean(model, (*MODELS.names(), *MODEL_GROUPS))
        raise UserError(f"unknown model '{model}'; {nearest}")
    pairs: dict[str, str] = {}
    for part in changes.split(",") if changes else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or not value:
            raise UserError(f"'{part}' in '{text}' is not key=value")
        check_key(key, f"'{text}'")
        if key in SET_BY_THE_GRID:
            raise UserError(f"'{text}' changes {key}, which the grid sets for each cell")
        if key in pairs:
            raise UserError(f"'{text}' gives {key} twice")
        pairs[key] = value
    return Variant(model, tuple(sorted(typed(pairs, f"'{text}'").items())))


def typed(pairs: Mapping[str, str], where: str) -> Settings:
    """Return the values of settings with the types of the run config; their ranges are not checked.

    Args:
        pairs: names of settings, and their values as text.
        where: the user's words that hold them, for messages.

    Raises:
        UserError: for a value of another type than the setting's.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RunConfig)
    try:
        parsed = parser.parse_args([f"--{key}={value}" for key, value in pairs.items()])
    except Exception as error:
        message = " ".join(str(error).split())
        mistake = flag_mistake(message, parser._actions) or message
        raise UserError(f"{where}: {mistake}") from error
    return {key: getattr(parsed, key) for key in pairs}


def expand(texts: Iterable[str]) -> list[Variant]:
    """Return the variants that the texts name, groups expanded, each once; see `parse_variant`."""
    members = [member for text in texts for member in MODEL_GROUPS.get(text, (text,))]
    return list({str(variant): variant for variant in map(parse_variant, members)}.values())


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        task: name of the task.
        model: label of the variant.
        seed: the run's seed.
        preset: name of the grid that the settings come from.
        base: the grid's settings for the task, equal for all variants.
        settings: the run config, without defaults and output folder.
    """

    task: str
    model: str
    seed: int
    preset: str
    base: Settings
    settings: Settings

    @property
    def key(self) -> Key:
        """What names the cell within a grid's folder."""
        return self.task, self.model, self.seed

    def __str__(self) -> str:
        return f"{self.task} {self.model} seed {self.seed}"

    def folder(self, output: Path) -> Path:
        """Return the run's folder under the grid's."""
        return output / CELLS / self.task / file_name(self.model) / f"seed-{self.seed}"

    def run_config(self) -> RunConfig:
        """Return the run config; raises `UserError` naming the cell if settings contradict."""
        try:
            run = RunConfig(**self.settings)
            run.check()
            if run.problem_type not in (None, SINGLE_LABEL):
                raise UserError(f"a grid compares accuracies, and problem_type '{run.problem_type}' has none")
        except UserError as mistake:
            raise UserError(f"{self.model} on {self.task}: {mistake}") from mistake
        return run


def file_name(label: str) -> str:
    """Return the name of a variant's files and folders; it differs for each label."""
    return quote(label.replace("[", "-").replace("]", ""), safe="=,")


def effective(settings: Mapping[str, Any]) -> Settings:
    """Return the settings on which a run's results depend."""
    return {name: value for name, value in settings.items() if name not in WITHOUT_EFFECT}


def make_cells(
    grid: Grid,
    tasks: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    seeds: int | None = None,
    data_dir: str | None = None,
    max_steps: int | None = None,
) -> list[Cell]:
    """Return the cells of a grid; all of the first seed come first, so that rows fill evenly.

    Args:
        grid: a preset.
        tasks: those of the grid to run; None means all.
        models: models, variants or groups of them; None means the grid's.
        seeds: how many, from 0 on; None means the grid's.
        data_dir: folder of the data; None means the environment's.
        max_steps: steps of each run; None means the grid's.

    Raises:
        UserError: for an empty grid, an unknown task or model, settings that contradict each other,
            or a model that cannot be brought to within 10% of the reference's parameters.
    """
    tasks = list(dict.fromkeys(grid.tasks if tasks is None else tasks))
    variants = expand(grid.models if models is None else models)
    seeds = grid.seeds if seeds is None else seeds
    for name, count in (("tasks", len(tasks)), ("models", len(variants)), ("seeds", seeds)):
        if count < 1:
            raise UserError(f"a grid with nothing in it: --{name} asks for none; give at least one")
    if seeds > MOST_SEEDS:
        raise UserError(f"--seeds must be at most {MOST_SEEDS:,}, not {seeds:,}")
    if max_steps is not None and max_steps < 1:
        raise UserError(f"--max_steps must be >= 1, not {max_steps}")
    for task in tasks:
        TASKS[task]
        if task not in grid.tasks:
            nearest = did_you_mean(task, grid.tasks)
            raise UserError(f"the preset '{grid.name}' has no settings for {task}; {nearest}")
    # A cell may run on another machine, or from another working directory.
    data_dir = None if data_dir is None else str(Path(data_dir).resolve())
    first_seed = []
    for task in tasks:
        base = shortened(grid.tasks[task], max_steps)
        for variant, settings in _sized(base | {"dataset": task, "data_dir": data_dir}, variants):
            first_seed.append(Cell(task, str(variant), 0, grid.name, base, settings | {"seed": 0}))
            first_seed[-1].run_config()
    return [
        replace(cell, seed=seed, settings=cell.settings | {"seed": seed})
        for seed in range(seeds)
        for cell in first_seed
    ]


def _sized(task: Settings, variants: Iterable[Variant]) -> Iterator[tuple[Variant, Settings]]:
    """Yield each variant with its settings on a task.

    The model's size is matched before the variant's changes, so that nothing else differs.
    """
    reference = resolve(task, {"model": REFERENCE})
    parameters = count_parameters(RunData.of(RunConfig(**reference)).model_settings())
    models = {REFERENCE: reference}
    for variant in variants:
        model = variant.model
        if model not in models:
            settings = resolve(task, {"model": model})
            of_model = RunData.of(RunConfig(**settings)).model_settings()
            matched = match_parameters(of_model, parameters, MODELS[model].lighter)
            changed = {name: v for name, v in matched.items() if v != of_model[name]}
            models[model] = settings | changed
        yield variant, models[model] | dict(variant.changes)
