"""The tables of a grid in Markdown, each measured figure beside the published one."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from rmaat.errors import UserError
from rmaat.grid import published
from rmaat.grid.figures import draw_accuracy
from rmaat.grid.outcomes import FINISHED, Outcome, read_outcomes
from rmaat.grid.presets import DESCRIBED
from rmaat.grid.published import Figures
from rmaat.grid.summary import BASELINE, NOTHING, Spread, Summary
from rmaat.machine.files import write_text

TABLES, MEMORY_FIGURE, TIME_FIGURE = "tables.md", "accuracy_memory.png", "accuracy_time.png"

Row = Sequence[str]


def write_tables(folder: Path) -> tuple[str, list[Path]]:
    """Write the tables and figures of a grid into its folder.

    Returns:
        The tables' text, and the files.

    Raises:
        UserError: if no cell in the folder has ended, or it cannot be written.
    """
    summary = Summary(read_outcomes(folder))
    if not summary.outcomes:
        remedy = "give the --output of `rmaat compare accuracy`"
        raise UserError(f"'{folder}' holds no cell that has ended; {remedy}")
    text = tables(summary)
    files = [folder / name for name in (TABLES, MEMORY_FIGURE, TIME_FIGURE)]
    try:
        write_text(files[0], text)
        draw_accuracy(summary, "memory", "peak memory of a training step (GB)", files[1])
        draw_accuracy(summary, "minutes", "time in training steps (minutes)", files[2])
    except OSError as error:
        raise UserError(f"'{folder}' cannot be written: {error.strerror}") from error
    return text, files


def tables(summary: Summary) -> str:
    """Return all tables, and what a reader must know of them."""
    accuracy, memory = (partial(summary.spread, measure) for measure in ("accuracy", "memory"))
    commonest = _commonest_class(summary)
    sections = [
        "# Models side by side",
        _preamble(summary),
        "## Test accuracy (%)",
        _beside_published(summary, accuracy, ".2f", published.ACCURACY, ".1f", commonest),
        "## Peak memory of a training step (GB)",
        "Weights, gradients, the optimiser's moments and activations; published: peak GPU memory.",
        _beside_published(summary, memory, ".3f", published.MEMORY, ".1f"),
        f"## Training throughput over that of `{BASELINE}`",
        "Tokens per second in training steps, compilation included, divided by the mean of "
        f"`{BASELINE}` on the task. Cells that ran side by side on one machine shared it.",
        _beside_published(summary, summary.throughput, ".2f", published.THROUGHPUT, ".2f"),
        "## Tokens per second in training, and parameters",
        _sizes(summary),
        "## Settings",
        _settings(summary),
    ]
    if failures := [outcome for outcome in summary.outcomes if outcome.status != FINISHED]:
        sections += ["## Seeds that failed", _failures(failures)]
    return "\n\n".join(sections) + "\n"


def _preamble(summary: Summary) -> str:
    metrics = [outcome.metrics for outcome in summary.finished]
    machines = "; ".join(dict.fromkeys(of_cell["machine"] for of_cell in metrics)) or NOTHING
    commits = ", ".join(dict.fromkeys(of_cell["commit"] for of_cell in metrics)) or NOTHING
    return (
        f"{len(metrics)} of {len(summary.outcomes)} cells finished. Mean ± standard deviation "
        "over n seeds (over n - 1); seeds that diverged or failed are counted apart and have no "
        "share in the mean. In a task's column every model has the same data and training "
        "settings.\n\n"
        f"Published: {published.SOURCE}, where task and model have the same name there. Its "
        "settings, training and hardware differ from those measured here (see Settings): compare "
        f"within a column.\n\nMachine: {machines}. Commit: {commits}."
    )


def _beside_published(
    summary: Summary,
    spread: Callable[[str, str], Spread],
    digits: str,
    figures: Figures,
    published_digits: str,
    *more: Row,
) -> str:
    """Return a table with two columns a task; `spread` takes a model and a task."""

    def fields(model: str, task: str) -> Row:
        figure = figures.get((model, task))
        beside = NOTHING if figure is None else f"{figure:{published_digits}}"
        return spread(model, task).text(digits), beside

    return _by_model(summary, lambda task: (task, "published"), fields, *more)


def _commonest_class(summary: Summary) -> Row:
    """Return the row of always guessing the commonest class."""
    shares = {o.cell.task: o.metrics["test_majority_accuracy"] for o in summary.finished}
    fields = [f"{100 * shares[task]:.2f}" if task in shares else NOTHING for task in summary.tasks]
    return ["always the commonest class", *(part for field in fields for part in (field, NOTHING))]


def _sizes(summary: Summary) -> str:
    def fields(model: str, task: str) -> Row:
        parameters = summary.spread("parameters", model, task).values
        speed = summary.spread("speed", model, task).text(",.0f")
        return speed, f"{parameters[0]:,}" if parameters else NOTHING

    return _by_model(summary, lambda task: (f"{task}: tokens/s", "parameters"), fields)


def _settings(summary: Summary) -> str:
    derived = ("test examples", "tokens of a training example, mean to longest")
    rows = [["task", "preset", *DESCRIBED, *derived]]
    for task in summary.tasks:
        cell = next(outcome.cell for outcome in summary.outcomes if outcome.cell.task == task)
        metrics = [o.metrics for o in summary.finished if o.cell.task == task]
        tested = sorted({of_cell["test_examples"] for of_cell in metrics})
        lengths = metrics[0]["data"]["train"]["lengths"].values() if metrics else ()
        tokens = [f"{column['mean']:,.0f} to {column['longest']:,}" for column in lengths]
        row = [task, cell.preset, *(str(cell.base[name]) for name in DESCRIBED)]
        row.append(" or ".join(f"{count:,}" for count in tested) or NOTHING)
        rows.append([*row, " and ".join(tokens) or NOTHING])
    return _markdown(rows)


def _failures(outcomes: Iterable[Outcome]) -> str:
    rows = [["task", "model", "seed", "status", "reason"]]
    for outcome in outcomes:
        cell, reason = outcome.cell, outcome.reason.replace("|", r"\|")
        rows.append([cell.task, f"`{cell.model}`", str(cell.seed), outcome.status, reason])
    return _markdown(rows)


def _by_model(
    summary: Summary,
    headings: Callable[[str], Row],
    fields: Callable[[str, str], Row],
    *more: Row,
) -> str:
    """Return a table with a row a model; a task has as many columns as `headings` of it."""
    rows: list[Row] = [["model", *chain.from_iterable(map(headings, summary.tasks))]]
    for model in summary.models:
        of_model = (fields(model, task) for task in summary.tasks)
        rows.append([f"`{model}`", *chain.from_iterable(of_model)])
    return _markdown([*rows, *more])


def _markdown(rows: Sequence[Row]) -> str:
    """Return a table; the first row is its headings."""
    lines = [rows[0], ["---", *("---:" for _ in rows[0][1:])], *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
