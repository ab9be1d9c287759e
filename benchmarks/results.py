"""Update the table of training runs in results/README.md from each run's metrics.json.

python benchmarks/results.py
"""

import json
import re
from pathlib import Path

from rmaat.grid.published import FIGURES

RESULTS = Path(__file__).resolve().parents[1] / "results"
HEADINGS = (
    ("run", "task", "model", "test accuracy %", "commonest class %", "published %"),
    ("steps", "tokens", "minutes", "tokens/s", "commit"),
)


def row(path: Path) -> str:
    """Return the row of the run with this metrics.json."""
    metrics = json.loads(path.read_text(encoding="utf-8"))
    run, task, model = path.parent.name, metrics.get("dataset", path.parent.name), metrics.get("model") or "rmaat"
    # The figure of the model, or that of RMAAT for a model of this project. Other names of runs, such as
    # aan_lite_in_aan_form, are not the benchmark's own task.
    as_published = run in (task, f"{task}_{model}", f"{task}_plus")
    figures = FIGURES["accuracy"]
    published = figures.get((model, task), figures.get(("rmaat", task), "")) if as_published else ""
    cells = (
        f"[{run}]({run}/metrics.json)",
        task,
        f"`{model}`",
        f"{100 * metrics['test_accuracy']:.2f}",
        f"{100 * metrics['test_majority_accuracy']:.2f}",
        # The published accuracy is that of one pixel per position.
        str(published) if metrics.get("patch_size", 1) == 1 else "",
        f"{metrics['steps']:,}",
        f"{metrics['train_tokens'] / 1e6:,.0f} M",
        f"{metrics['train_seconds'] / 60:.0f}",
        f"{metrics['train_tokens_per_second']:,}",
        metrics.get("commit", ""),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Replace the table, from its heading to the empty line after it."""
    headings = [heading for group in HEADINGS for heading in group]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    # Tasks with answers at many positions have a table of their own.
    paths = (
        path
        for path in sorted(RESULTS.glob("*/metrics.json"))
        if not path.parent.name.startswith(("mqar", "copy", "selective_copy"))
    )
    lines += [row(path) for path in paths]
    page = RESULTS / "README.md"
    table = "\n".join(lines) + "\n\n"
    text = re.sub(r"\| run \|.*?\n\n", table, page.read_text(), count=1, flags=re.DOTALL)
    page.write_text(text)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
