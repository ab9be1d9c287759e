"""The report of a grid: its tables and figures, written into its folder."""

from pathlib import Path

from rmaat.compare.grid.figures import draw_accuracy
from rmaat.compare.grid.results import RESULTS, read
from rmaat.compare.grid.summary import Summary
from rmaat.compare.grid.tables import tables
from rmaat.errors import UserError
from rmaat.machine.files import write_text

TABLES, MEMORY_FIGURE, TIME_FIGURE = "tables.md", "accuracy_memory.png", "accuracy_time.png"


def write_report(folder: Path) -> tuple[str, list[Path]]:
    """Write tables.md and, where a cell has finished, the figures.

    Returns:
        The tables' text, and the files.

    Raises:
        UserError: where the folder has no results, or cannot be written.
    """
    results = read(folder)
    if not results.records:
        raise UserError(f"'{folder}' has no cells in {RESULTS}; give the --output of `rmaat compare accuracy`")
    summary = Summary(list(results.records.values()))
    text = tables(summary)
    if results.damaged:
        text += f"\nLeft out of {RESULTS}: {results.damaged} damaged line(s).\n"
    files = [folder / name for name in (TABLES, MEMORY_FIGURE, TIME_FIGURE)]
    try:
        write_text(files[0], text)
        draw_accuracy(summary, summary.memory, "peak memory of a training step (GB)", files[1])
        draw_accuracy(summary, summary.minutes, "time in training steps (minutes)", files[2])
    except OSError as error:
        raise UserError(f"'{folder}' cannot be written: {error.strerror}") from error
    return text, files
