"""Write the table of training runs in results/README.md anew, from each run's metrics.json.

python benchmarks/results.py
"""

import json
import re
from pathlib import Path

from rmaat.grid.published import ACCURACY

RESULTS = Path(__file__).resolve().parents[1] / "results"
HEADINGS = (
    ("run", "task", "test accuracy %", "commonest class %", "published RMAAT %"),
    ("steps", "tokens", "minutes", "tokens/s", "commit"),
)


def row(path: Path) -> str:
    """One line of the table."""
    found = json.loads(path.read_text(encoding="utf-8"))
    run, task = path.parent.name, found.get("dataset", path.parent.name)
    cells = (
        f"[{run}]({run}/metrics.json)",
        task,
        f"{100 * found['test_accuracy']:.2f}",
        f"{100 * found['test_majority_accuracy']:.2f}",
        # What was published is of one pixel a position.
        str(ACCURACY.get(("rmaat", run), "")) if found.get("patch_size", 1) == 1 else "",
        f"{found['steps']:,}",
        f"{found['train_tokens'] / 1e6:,.0f} M",
        f"{found['train_seconds'] / 60:.0f}",
        f"{found['train_tokens_per_second']:,}",
        found.get("commit", ""),
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Replace the lines of the table, from its heading to the empty line after it."""
    headings = [heading for group in HEADINGS for heading in group]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    lines += [row(path) for path in sorted(RESULTS.glob("*/metrics.json"))]
    page = RESULTS / "README.md"
    page.write_text(re.sub(r"\| run \|.*?\n\n", "\n".join(lines) + "\n\n", page.read_text(), count=1, flags=re.DOTALL))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
