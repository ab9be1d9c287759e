"""A search over settings: for each model the same number of trials, each one cell of a grid.

The folder is the database: a trial's folder holds its settings, and a trial is finished if it holds
metrics.json. No proposal depends on anything else than the earlier trials' folders and the seed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rmaat.errors import UserError
from rmaat.grid.cells import Cell, Key, Variant, effective, expand, file_name
from rmaat.grid.executors import make_executor
from rmaat.grid.outcomes import BEGUN, FINISHED, Outcome, read_outcome
from rmaat.grid.presets import SHARES, Settings, shortened
from rmaat.grid.process import prepare
from rmaat.grid.run import (
    check_counts,
    check_data,
    check_equal,
    claimed,
    finish_removal,
    run_cells,
)
from rmaat.grid.space import FIXED, Choice, Interval, Space, around, parse_space
from rmaat.presets import resolve
from rmaat.recipes import recipe_layers
from rmaat.terminal import console
from rmaat.training.config import RunConfig, check_layer
from rmaat.training.data import RunData

TRIALS = "trials"
"""The folder of all trials within the search's."""

MOST_TRIALS = 1000

RANDOM_TRIALS = 4
"""The first trials of each model: the recipe's values, then random ones [C]."""


@dataclass(frozen=True)
class Trial(Cell):
    """A cell with some settings changed.

    Attributes:
        number: of the model's trials, from 0 on.
        values: the searched settings.
    """

    number: int
    values: Settings

    @property
    def key(self) -> Key:
        """The trial's name within the folder of its search."""
        return self.task, self.model, self.number

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value_text(value)}" for name, value in self.values.items())
        return f"{self.model} trial {self.number} ({values})"

    def folder(self, output: Path) -> Path:
        """Return the run's folder under the search's."""
        return output / TRIALS / file_name(self.model) / f"trial-{self.number}"


def value_text(value: Any) -> str:
    """Return a value of a searched setting in few characters."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(Choice((value,)))


@dataclass(frozen=True)
class Search:
    """The trials of a search.

    Attributes:
        recipe: name of the recipe.
        task: name of the task.
        seed: seed of all runs and of the proposals.
        trials: number of trials of each model.
        space: the values of each searched setting.
        models: by label, the recipe, the model and its settings that are not searched.
        budget: settings of all trials that are no settings of the model searched for: the number of
            steps, and the single test example that a run needs.
        first: by label, the values of the model's first trial: those without a search.
    """

    recipe: str
    task: str
    seed: int
    trials: int
    space: Space
    models: Mapping[str, Settings]
    budget: Settings
    first: Mapping[str, Settings]

    def trial(self, model: str, number: int, values: Settings) -> Trial:
        """Return a model's trial with these values of the searched settings."""
        fixed = {**self.budget, **self.models[model]}
        base = effective(self._resolved(fixed))
        base |= {f"--space {name}": str(values) for name, values in self.space.items()}
        settings = self._resolved({**fixed, **values})
        names = self.task, model, self.seed, self.recipe
        return Trial(*names, base, settings, number, values)

    def _resolved(self, layer: Settings) -> Settings:
        return resolve(*self._recipe_layers, layer)

    @cached_property
    def _recipe_layers(self) -> list[Settings]:
        return recipe_layers(self.recipe)

    def read(self, model: str, number: int, output: Path) -> Outcome | None:
        """Return the outcome of a trial, with status `BEGUN` if it has not ended.

        Returns:
            The outcome; None if its folder is missing or damaged.

        Raises:
            UserError: if the folder holds a trial of other settings, or of another space.
        """
        unread = self.trial(model, number, self.first[model])
        stored = read_outcome(unread.folder(output))
        if stored is None:
            return None
        check_equal(unread.base, stored.cell.base, f"'{output}' holds {model} trial {number}")
        values = {name: stored.cell.settings[name] for name in self.space}
        return replace(stored, cell=self.trial(model, number, values))

    def outcomes(self, output: Path) -> list[Outcome]:
        """Return the outcomes of all trials in the folder, by number; see `read`."""
        keys = [(model, number) for number in range(self.trials) for model in self.models]
        return [outcome for key in keys if (outcome := self.read(*key, output)) is not None]

    def waiting(self, output: Path) -> Iterator[Trial]:
        """Yield the trials to run; the values of each depend on those that have ended by then.

        A trial that was begun keeps its values. The trials of all models take turns, so that the
        models have the same number of them at any time.

        Raises:
            OSError: if a folder cannot be written.
        """
        for number in range(self.trials):
            for model in self.models:
                stored = self.read(model, number, output)
                if stored is None:
                    values = self.propose(model, number, output)
                    trial = self.trial(model, number, values)
                elif stored.final:
                    continue
                else:
                    assert isinstance(stored.cell, Trial)
                    trial = stored.cell
                # The next proposal reads it, perhaps before its process has started.
                prepare(trial, trial.folder(output))
                yield trial

    def propose(self, model: str, number: int, output: Path) -> Settings:
        """Return the values of a model's next trial.

        Args:
            model: label of the model.
            number: of the trial; the folders of those before it are read.
            output: the folder of the search.
        """
        if number == 0:
            return dict(self.first[model])
        earlier = [self.read(model, before, output) for before in range(number)]
        return propose(self.space, [trial for trial in earlier if trial], [self.seed, number])


def propose(space: Space, earlier: Iterable[Outcome], seed: Sequence[int]) -> Settings:
    """Return the values that Optuna's sampler (a tree of Parzen estimators) proposes.

    A diverged or failed trial has Optuna's state FAIL: the sampler learns nothing from it. It does
    not learn from values outside the space either, which a recipe may have.

    Args:
        space: the values of each setting.
        earlier: outcomes of the trials proposed before.
        seed: of this proposal.
    """
    optuna = import_optuna()
    study = optuna.create_study(
        direction="maximize",
        # The sampler must not depend on how often this process has used it, so make a new one.
        sampler=optuna.samplers.TPESampler(
            n_startup_trials=RANDOM_TRIALS,
            # Take a running trial for a bad one, so that the next is not beside it.
            constant_liar=True,
            seed=int(np.random.SeedSequence(seed).generate_state(1)[0]),
        ),
    )
    distributions = {name: _distribution(optuna, values) for name, values in space.items()}
    states = {FINISHED: optuna.trial.TrialState.COMPLETE, BEGUN: optuna.trial.TrialState.RUNNING}
    for outcome in earlier:
        values = {name: outcome.cell.settings[name] for name in space}
        if all(values[name] in space[name] for name in space):
            trial = optuna.trial.create_trial(
                state=states.get(outcome.status, optuna.trial.TrialState.FAIL),
                value=outcome.metrics.get("eval_accuracy"),
                params=values,
                distributions=distributions,
            )
            study.add_trial(trial)
    return dict(study.ask(distributions).params)


def _distribution(optuna: Any, values: Interval | Choice) -> Any:
    if isinstance(values, Choice):
        return optuna.distributions.CategoricalDistribution(values.values)
    if isinstance(values.low, int):
        return optuna.distributions.IntDistribution(values.low, values.high)
    ends = values.low, values.high
    return optuna.distributions.FloatDistribution(*ends, log=values.logarithmic)


def import_optuna() -> Any:
    """Return the package optuna, which prints warnings only; raise `UserError` if it is missing."""
    try:
        import optuna
    except ImportError as error:
        install = "install it with `pip install 'rmaat[search]'`"
        raise UserError(f"rmaat search needs the package optuna; {install}") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def make_search(
    recipe: str,
    models: Iterable[str],
    trials: int,
    settings: Mapping[str, Any],
    space: Iterable[str] | None = None,
) -> Search:
    """Return the search, after checking each model with the extremes of the space.

    Args:
        recipe: name of a recipe.
        models: models, variants or groups of them.
        trials: number of trials of each model.
        settings: run settings of all trials. The steps and the seed are settings of the search:
            warm-up and evaluations keep their shares of the steps, unless they are set as well.
        space: the searched settings with their values, see `rmaat.grid.space.parse_space`. None
            means the learning rate, from a tenth to ten times the recipe's.

    Raises:
        UserError: for no models, too few or too many trials, an unknown recipe, model or setting,
            and settings that contradict each other, the task or a model.
    """
    if not 1 <= trials <= MOST_TRIALS:
        raise UserError(f"--trials must be from 1 to {MOST_TRIALS:,}, not {trials:,}")
    common = check_layer(settings)
    steps, seed = common.pop("max_steps", None), common.pop("seed", RunConfig.seed)
    if steps == 0:
        raise UserError("--max_steps must be >= 1, not 0")
    if common.get("data_dir") is not None:
        # A trial may run on another machine, or from another working directory.
        common["data_dir"] = str(Path(common["data_dir"]).resolve())
    layers = {str(variant): _layer(variant, recipe, common) for variant in expand(models)}
    if not layers:
        raise UserError("--models names none; give at least one")
    runs = {label: RunConfig.resolved(layer) for label, layer in layers.items()}
    run = next(iter(runs.values()))
    if run.objective != "labels":
        raise UserError(f"a search compares accuracies, and objective '{run.objective}' has none")
    parsed: Space = parse_space(space) if space else {"learning_rate": around(run.learning_rate)}
    for label, variant in zip(layers, expand(models), strict=True):
        if twice := sorted(dict(variant.changes).keys() & parsed.keys()):
            raise UserError(f"'{label}' changes {twice[0]}, which --space has as well")
    search = Search(
        recipe=recipe,
        task=run.dataset,
        seed=seed,
        trials=trials,
        space=parsed,
        models=layers,
        budget=_budget(run, steps, common) | {"seed": seed, "test_examples": 1},
        first={label: {name: getattr(run, name) for name in parsed} for label, run in runs.items()},
    )
    for label in layers:
        first = search.first[label]
        RunData.of(search.trial(label, 0, first).run_config()).with_matched_parameters()
        for name, values in parsed.items():
            for value in values.extremes:
                RunData.of(search.trial(label, 0, {**first, name: value}).run_config())
    return search


def _layer(variant: Variant, recipe: str, settings: Settings) -> Settings:
    """Return the settings of a model, in the form of a file for `rmaat train --config`."""
    for name, _ in variant.changes:
        if name in FIXED:
            raise UserError(f"'{variant}' changes {name}, which is the same in all trials")
    changes = dict(variant.changes)
    return {"recipe": recipe, "model": variant.model, **settings, **changes}


def _budget(run: RunConfig, steps: int | None, settings: Settings) -> Settings:
    """Return the settings for so many steps; those that the user has set stay as they are."""
    if steps is None:
        return {}
    if not run.max_steps:
        return {"max_steps": steps}
    recipe = {name: getattr(run, name) for name in ("max_steps", *SHARES)}
    return {k: v for k, v in shortened(recipe, steps).items() if k not in settings}


def run_search(
    search: Search,
    output: Path,
    workers: int | None = None,
    threads: int | None = None,
    ray_address: str | None = None,
) -> list[Outcome]:
    """Run the trials that are not finished or diverged in the folder.

    Args:
        search: the search.
        output: its folder.
        workers: trials at a time; see `rmaat.grid.executors`.
        threads: CPU threads of a trial.
        ray_address: a Ray cluster to run on instead of this machine.

    Returns:
        The outcomes of all trials; with one worker they depend on the search alone.

    Raises:
        UserError: before anything runs, if Optuna or data is missing, another search is writing to
            the folder, the folder holds trials of other settings, or there is no such cluster.
    """
    import_optuna()
    check_counts(workers, threads)
    check_data([search.trial(model, 0, values) for model, values in search.first.items()])
    screen = console(stderr=True)
    # Cells may run in another working directory.
    output = output.resolve()
    with claimed(output):
        ended = [outcome for outcome in search.outcomes(output) if outcome.final]
        finish_removal(ended, output)
        total = search.trials * len(search.models)
        screen.print(f"{total} trials, {len(ended)} of them finished before")
        if len(ended) < total:
            run_cells(
                search.waiting(output),
                output,
                make_executor(workers, threads, ray_address),
                screen,
                total=total,
                before=len(ended),
                accuracy="eval_accuracy",
            )
        return search.outcomes(output)
