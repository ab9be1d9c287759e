"""The tables of a grid in Markdown, each measured figure beside the published one."""

from collections.abc import Callable

from rmaat.compare.grid import published
from rmaat.compare.grid.presets import DESCRIBED
from rmaat.compare.grid.published import Figures
from rmaat.compare.grid.results import FINISHED
from rmaat.compare.grid.summary import BASELINE, Spread, Summary

NOTHING = "–"

Text = Callable[[float], str]


def tables(summary: Summary) -> str:
    """All tables, and what is to be known to read them."""
    sections = [
        "# Models side by side",
        _preamble(summary),
        "## Test accuracy (%)",
        _table(summary, summary.accuracy, "{:.2f}".format, published.ACCURACY, "{:.1f}".format, _commonest(summary)),
        "## Peak memory of a training step (GB)",
        "Weights, gradients, the optimiser's moments and activations; published: peak GPU memory.",
        _table(summary, summary.memory, "{:.3f}".format, published.MEMORY, "{:.1f}".format),
        f"## Training throughput over that of `{BASELINE}`",
        "Tokens per second in training steps, compilation included, divided by the mean of "
        f"`{BASELINE}` on the task. Cells that ran side by side on one machine shared it.",
        _table(summary, summary.throughput, "{:.2f}".format, published.THROUGHPUT, "{:.2f}".format),
        "## Tokens per second in training, and parameters",
        _sizes(summary),
        "## Settings",
        _settings(summary),
        *_failures(summary),
    ]
    return "\n\n".join(sections) + "\n"


def told(spread: Spread | None, text: Text) -> str:
    """Mean ± standard deviation over seeds, the number of seeds, and how many failed."""
    if spread is None:
        return NOTHING
    failed = f"{spread.failed} failed"
    if spread.mean is None:
        return failed
    deviation = f" ± {text(spread.deviation)}" if spread.deviation is not None else ""
    return f"{text(spread.mean)}{deviation} (n={len(spread.values)}{f', {failed}' if spread.failed else ''})"


def _table(
    summary: Summary,
    measured: Callable[[str, str], Spread | None],
    text: Text,
    figures: Figures,
    published_text: Text,
    last: list[list[str]] | None = None,
) -> str:
    headings = ["model"]
    for task in summary.tasks:
        headings += [task, "published"]
    rows = []
    for model in summary.models:
        row = [f"`{model}`"]
        for task in summary.tasks:
            figure = figures.get((model, task))
            row += [told(measured(model, task), text), NOTHING if figure is None else published_text(figure)]
        rows.append(row)
    return _markdown(headings, rows + (last or []))


def _commonest(summary: Summary) -> list[list[str]]:
    """The row of always guessing the commonest class."""
    row = ["always the commonest class"]
    for task in summary.tasks:
        found = [r.values["test_majority_accuracy"] for r in summary.records if r.task == task and r.status == FINISHED]
        row += [f"{100 * found[0]:.2f}" if found else NOTHING, NOTHING]
    return [row]


def _sizes(summary: Summary) -> str:
    headings = ["model"]
    for task in summary.tasks:
        headings += [f"{task}: tokens/s", "parameters"]
    rows = []
    for model in summary.models:
        row = [f"`{model}`"]
        for task in summary.tasks:
            parameters = summary.parameters(model, task)
            row += [
                told(summary.tokens_per_second(model, task), "{:,.0f}".format),
                f"{parameters.values[0]:,.0f}" if parameters and parameters.values else NOTHING,
            ]
        rows.append(row)
    return _markdown(headings, rows)


def _settings(summary: Summary) -> str:
    rows = []
    for task in summary.tasks:
        of_task = [record.values for record in summary.records if record.task == task]
        finished = [values for values in of_task if values["status"] == FINISHED]
        row = [task, of_task[0]["preset"], *(f"{of_task[0]['base'][name]}" for name in DESCRIBED)]
        tested = {values["test_examples"] for values in finished if "test_examples" in values}
        row.append(" or ".join(f"{count:,}" for count in sorted(tested)) or NOTHING)
        lengths = finished[0]["lengths"]["train"].values() if finished else []
        row.append(" and ".join(f"{column['mean']:,.0f} to {column['longest']:,}" for column in lengths) or NOTHING)
        rows.append(row)
    return _markdown(
        ["task", "preset", *DESCRIBED, "test examples", "tokens of a training example, mean to longest"], rows
    )


def _preamble(summary: Summary) -> str:
    finished = [record.values for record in summary.records if record.status == FINISHED]
    machines = "; ".join(dict.fromkeys(values["machine"] for values in finished)) or NOTHING
    commits = ", ".join(dict.fromkeys(values["commit"] for values in finished)) or NOTHING
    return (
        f"{len(finished)} of {len(summary.records)} cells finished. Mean ± standard deviation over n seeds (over n - 1); seeds "
        "that diverged or failed are counted apart and have no share in the mean. In a task's column every model has the same "
        "data and training settings.\n\n"
        f"Published: {published.SOURCE}, where task and model have the same name there. Its settings, training and hardware "
        f"differ from those measured here (see Settings): compare within a column.\n\nMachine: {machines}. Commit: {commits}."
    )


def _failures(summary: Summary) -> list[str]:
    failed = [record for record in summary.records if record.status != FINISHED]
    if not failed:
        return []
    rows = [[r.task, f"`{r.model}`", str(r.seed), r.status, r.reason.replace("|", r"\|")] for r in failed]
    return ["## Seeds that failed", _markdown(["task", "model", "seed", "status", "reason"], rows)]


def _markdown(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---", *("---:" for _ in headings[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
