"""The tables of a grid in Markdown, each measured figure beside the published one."""

from collections.abc import Sequence
from pathlib import Path

from rmaat.errors import UserError
from rmaat.grid import published
from rmaat.grid.figures import draw_accuracy
from rmaat.grid.outcomes import FINISHED, Outcome, read_outcomes
from rmaat.grid.presets import DESCRIBED
from rmaat.grid.summary import BASELINE, Summary
from rmaat.machine.files import write_text
from rmaat.machine.tables import MISSING, Table

TABLES, MEMORY_FIGURE, TIME_FIGURE = "tables.md", "accuracy_memory.png", "accuracy_time.png"
PARTS = "Weights, gradients, the optimiser's moments and activations; published: peak GPU memory."
DIVISOR = (
    "Tokens per second in training steps, compilation included, divided by the mean of "
    f"`{BASELINE}` on the task. Cells that ran side by side on one machine shared it."
)
BY_MODEL = (
    ("Test accuracy (%)", "accuracy", ".2f", ".1f", ""),
    ("Peak memory of a training step (GB)", "memory", ".3f", ".1f", PARTS),
    (f"Training throughput over that of `{BASELINE}`", "throughput", ".2f", ".2f", DIVISOR),
    ("Tokens per second in training, and parameters", "speed", ",.0f", ",", ""),
)
"""The tables with two columns for each task.

Each has a title, the name of a measure in `MEASURES`, the format of its figures, the format of the
second column, and a note.
"""


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
    sections = [_preamble(summary), *(table.markdown() for table in tables(summary))]
    text = "\n\n".join(sections) + "\n"
    files = [folder / name for name in (TABLES, MEMORY_FIGURE, TIME_FIGURE)]
    try:
        write_text(files[0], text)
        draw_accuracy(summary, "memory", "peak memory of a training step (GB)", files[1])
        draw_accuracy(summary, "minutes", "time in training steps (minutes)", files[2])
    except OSError as error:
        raise UserError(f"'{folder}' cannot be written: {error.strerror}") from error
    return text, files


def _preamble(summary: Summary) -> str:
    metrics = [outcome.metrics for outcome in summary.finished]
    machines = "; ".join(dict.fromkeys(of_cell["machine"] for of_cell in metrics)) or MISSING
    commits = ", ".join(dict.fromkeys(of_cell["commit"] for of_cell in metrics)) or MISSING
    return (
        "# Models side by side\n\n"
        f"{len(metrics)} of {len(summary.outcomes)} cells finished. Mean ± standard deviation "
        "over n seeds (over n - 1); seeds that diverged or failed are counted apart and have no "
        "share in the mean. In a task's column every model has the same data and training "
        "settings.\n\n"
        f"Published: {published.SOURCE}, where task and model have the same name there. Its "
        "settings, training and hardware differ from those measured here (see Settings): compare "
        f"within a column.\n\nMachine: {machines}. Commit: {commits}."
    )


def tables(summary: Summary) -> list[Table]:
    """Return all tables."""
    finished = [(outcome.cell, outcome.metrics) for outcome in summary.finished]
    sizes = {(cell.model, cell.task): metrics["num_parameters"] for cell, metrics in finished}
    beside = {measure: ("published", figures) for measure, figures in published.FIGURES.items()}
    beside["speed"] = "parameters", sizes
    by_model = []
    for title, measure, digits, beside_digits, note in BY_MODEL:
        rows = []
        heading, figures = beside[measure]
        for model in summary.models:
            rows.append([f"`{model}`"])
            for task in summary.tasks:
                figure = figures.get((model, task))
                rows[-1].append(summary.spread(measure, model, task).text(digits))
                rows[-1].append(MISSING if figure is None else f"{figure:{beside_digits}}")
        if measure == "accuracy":
            rows.append(_commonest_class(summary))
        headings = [name for task in summary.tasks for name in (task, heading)]
        by_model.append(Table(title, ["model", *headings], rows, note))
    failures = [outcome for outcome in summary.outcomes if outcome.status != FINISHED]
    return [*by_model, _settings(summary), *([_failures(failures)] if failures else [])]


def _commonest_class(summary: Summary) -> list[str]:
    """Return the row of always guessing the commonest class."""
    shares = {o.cell.task: o.metrics["test_majority_accuracy"] for o in summary.finished}
    fields = [f"{100 * shares[task]:.2f}" if task in shares else MISSING for task in summary.tasks]
    return ["always the commonest class", *(part for field in fields for part in (field, MISSING))]


def _settings(summary: Summary) -> Table:
    derived = ("test examples", "tokens of a training example, mean to longest")
    rows = []
    for task in summary.tasks:
        cell = next(outcome.cell for outcome in summary.outcomes if outcome.cell.task == task)
        metrics = [o.metrics for o in summary.finished if o.cell.task == task]
        tested = sorted({of_cell["test_examples"] for of_cell in metrics})
        lengths = metrics[0]["data"]["train"]["lengths"].values() if metrics else ()
        tokens = [f"{column['mean']:,.0f} to {column['longest']:,}" for column in lengths]
        row = [task, cell.preset, *(str(cell.base[name]) for name in DESCRIBED)]
        row.append(" or ".join(f"{count:,}" for count in tested) or MISSING)
        rows.append([*row, " and ".join(tokens) or MISSING])
    return Table("Settings", ("task", "preset", *DESCRIBED, *derived), rows)


def _failures(outcomes: Sequence[Outcome]) -> Table:
    rows = []
    for outcome in outcomes:
        cell, reason = outcome.cell, outcome.reason.replace("|", r"\|")
        rows.append([cell.task, f"`{cell.model}`", str(cell.seed), outcome.status, reason])
    return Table("Seeds that failed", ("task", "model", "seed", "status", "reason"), rows)
