"""The results of a search: tables, a figure, and the best settings of each model as a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmaat.bench.figures import figure_file, mark
from rmaat.grid.cells import file_name
from rmaat.grid.outcomes import FINISHED, Outcome
from rmaat.grid.search import Search, value_text
from rmaat.machine.files import write_json, write_text
from rmaat.machine.provenance import provenance
from rmaat.machine.tables import MISSING, Table
from rmaat.settings_file import settings_text

JSON, FIGURE = "search.json", "search.png"

RATE = "learning_rate"
"""The setting on the figure's horizontal axis."""

Best = dict[str, Outcome]
"""By the label of each model that has a finished trial."""


def best_trials(outcomes: Sequence[Outcome]) -> Best:
    """Return each model's trial with the highest validation accuracy, of equal ones the first."""
    best: Best = {}
    for outcome in outcomes:
        if outcome.status == FINISHED:
            other = best.setdefault(outcome.cell.model, outcome)
            if accuracy(outcome) > accuracy(other):
                best[outcome.cell.model] = outcome
    return best


def accuracy(outcome: Outcome) -> float:
    """Return the validation accuracy of a finished trial, 0 .. 1."""
    return float(outcome.metrics["eval_accuracy"])


def write_results(search: Search, outcomes: Sequence[Outcome], output: Path) -> list[Path]:
    """Write search.json, a file of settings for each model, and the figure if it has an axis.

    Args:
        search: the search.
        outcomes: of its trials, by number.
        output: its folder.

    Returns:
        The files.
    """
    best = best_trials(outcomes)
    files = [output / JSON]
    write_json(files[0], {**provenance(), **to_json(search, outcomes)})
    for model, outcome in best.items():
        files.append(output / f"{file_name(model)}.yaml")
        write_text(files[-1], best_settings(search, outcome))
    if RATE in search.space and best:
        files.append(output / FIGURE)
        draw_search(search, outcomes, files[-1])
    return files


def best_settings(search: Search, outcome: Outcome) -> str:
    """Return a trial's settings without its budget, as a file for `rmaat train --config`."""
    model, values = outcome.cell.model, {n: outcome.cell.settings[n] for n in search.space}
    percent = f"{100 * accuracy(outcome):.2f}%"
    comment = f"# The best of {search.trials} trials: validation accuracy {percent}.\n"
    return comment + settings_text({**search.models[model], **values})


def to_json(search: Search, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the content of search.json, without command, commit and machine."""
    best = best_trials(outcomes)
    trials = []
    for outcome in outcomes:
        finished = outcome.status == FINISHED
        trials.append(
            {
                "model": outcome.cell.model,
                "trial": outcome.cell.key[2],
                "values": {name: outcome.cell.settings[name] for name in search.space},
                "status": outcome.status,
                "eval_accuracy": accuracy(outcome) if finished else None,
                "seconds": outcome.metrics["train_seconds"] if finished else None,
                "failure": outcome.reason or None,
                "settings": outcome.cell.settings,
            }
        )
    return {
        "recipe": search.recipe,
        "task": search.task,
        "seed": search.seed,
        "space": {name: str(values) for name, values in search.space.items()},
        "best": {model: outcome.cell.key[2] for model, outcome in best.items()},
        "trials": trials,
    }


def search_tables(search: Search, outcomes: Sequence[Outcome]) -> list[Table]:
    """Return the table of each model's best trial, and that of all trials."""
    best = best_trials(outcomes)
    of_best, of_all = [], []
    for model in search.models:
        trials = [outcome for outcome in outcomes if outcome.cell.model == model]
        finished = sum(outcome.status == FINISHED for outcome in trials)
        row = [model, _percent(best.get(model)), _percent(trials[0] if trials else None)]
        of_best.append([*row, f"{finished} of {search.trials}", *_values(search, best.get(model))])
        for trial in trials:
            seconds = trial.metrics.get("train_seconds")
            row = [model, str(trial.cell.key[2]), *_values(search, trial), _percent(trial)]
            of_all.append([*row, MISSING if seconds is None else f"{seconds:.0f}"])
    title = f"Best validation accuracy (%) on {search.task}"
    return [
        Table("Trials", ("model", "trial", *search.space, "accuracy", "seconds"), of_all),
        Table(title, ("model", "best", "first trial", "finished", *search.space), of_best),
    ]


def _percent(outcome: Outcome | None) -> str:
    if outcome is None:
        return MISSING
    finished = outcome.status == FINISHED
    return f"{100 * accuracy(outcome):.2f}" if finished else outcome.status


def _values(search: Search, outcome: Outcome | None) -> list[str]:
    if outcome is None:
        return [MISSING] * len(search.space)
    return [value_text(outcome.cell.settings[name]) for name in search.space]


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a line for each trial without an accuracy: its status and its reason."""
    failed = [outcome for outcome in outcomes if outcome.status != FINISHED]
    return [f"{outcome.cell}: {outcome.status}: {outcome.reason}" for outcome in failed]


def draw_search(search: Search, outcomes: Sequence[Outcome], path: Path) -> None:
    """Write a PNG of validation accuracy against learning rate, a colour a model.

    Crosses at the lower edge are trials without an accuracy. Points are joined if nothing else is
    searched.
    """
    with figure_file(path, 8, 4.6) as figure:
        axes = figure.subplots()
        for index, model in enumerate(search.models):
            trials = [outcome for outcome in outcomes if outcome.cell.model == model]
            finished = sorted(
                (outcome.cell.settings[RATE], 100 * accuracy(outcome))
                for outcome in trials
                if outcome.status == FINISHED
            )
            style = {**mark(index), "markersize": 5}
            if finished:
                line = "-" if len(search.space) == 1 else "none"
                axes.plot(*zip(*finished, strict=True), linestyle=line, label=model, **style)
            failed = [o.cell.settings[RATE] for o in trials if o.status != FINISHED]
            style = {"color": style["color"], "marker": "x", "linestyle": "none"}
            heights = [0.02] * len(failed)
            axes.plot(failed, heights, transform=axes.get_xaxis_transform(), **style)
        axes.set(xscale="log", xlabel="learning rate", ylabel="validation accuracy (%)")
        axes.set_title(f"{search.task}, {search.trials} trials of each model")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
