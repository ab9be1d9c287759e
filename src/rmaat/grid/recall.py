"""How far a memory reaches: trained models tested on more segments between writing and asking than they were trained on.

Shape suffixes: B examples, N tokens of an example.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rmaat.bench.figures import figure_file, mark
from rmaat.errors import UserError
from rmaat.grid.cells import Cell
from rmaat.machine.files import write_json
from rmaat.machine.memory import memory_of
from rmaat.machine.provenance import provenance
from rmaat.machine.tables import MISSING, Table
from rmaat.machine.units import mebibytes
from rmaat.tasks.memory import MemoryTask
from rmaat.training.finished_run import FinishedRun, open_classifier

RECALL = "recall.json"
"""Beside a cell's metrics: its tests."""

BATCH = 16
"""Examples of one batch at every length, so that peaks can be compared."""

TOKENS_OF_A_TEST = 2**21
"""Beyond this many tokens a length is tested on fewer examples, down to one batch."""


@dataclass(frozen=True)
class Test:
    """One model at one length.

    Attributes:
        segments: of each example, the question's included.
        tokens: of each example.
        examples: tested.
        accuracy: share of right answers, in 0 .. 1; None if the model cannot read so many segments.
        peak_bytes: peak memory of the forward pass above weights and examples; resident memory on a CPU, the allocator's on CUDA.
        seconds: of the forward passes.
        failure: why there is no accuracy, or None.
    """

    segments: int
    tokens: int
    examples: int
    accuracy: float | None = None
    peak_bytes: int | None = None
    seconds: float | None = None
    failure: str | None = None


def examples_of(tokens: int, most: int) -> int:
    """Return how many examples of a length are tested: whole batches within `TOKENS_OF_A_TEST` tokens, at least one."""
    return BATCH * max(1, min(most, TOKENS_OF_A_TEST // tokens) // BATCH)


@torch.no_grad()
def test_memory(run: FinishedRun, segments: int, most: int, seed: int, device: str) -> Test:
    """Test a finished run on new examples of one number of segments.

    Args:
        run: of a task that only memory can solve.
        segments: of each example, the question's included.
        most: examples at most; see `examples_of`.
        seed: seed of the examples; the same for all models.
        device: 'cpu' or 'cuda'.

    Returns:
        The test; its accuracy is None if the model has no memory and the examples are longer than what it reads at once, or if
        a learned schedule has no factors for so many segments.
    """
    task, config = _memory_task(run), run.config
    tokens = task.length(segments)
    if config.num_segments == 1 and tokens > config.max_seq_len:
        return Test(segments, tokens, 0, failure=f"reads {config.max_seq_len} tokens at once and has no memory")
    examples = examples_of(tokens, most)
    model, memory = run.model.to(device), memory_of(device)
    # All examples are drawn before the baseline is taken, so that the peak is that of the forward pass.
    drawn = task.draw(np.random.default_rng([seed, segments]), examples, segments)
    ids_BN, labels_B = (torch.from_numpy(array).to(device) for array in drawn)
    try:
        # The first call of a process allocates what all later ones use.
        model(ids_BN[:BATCH, : 2 * task.segment_tokens])
        baseline, started = memory.begin_peak(), time.perf_counter()
        answers = [model(batch_BN).logits.argmax(-1) for batch_BN in ids_BN.split(BATCH)]
    except UserError as mistake:
        return Test(segments, tokens, 0, failure=str(mistake))
    right = int((torch.cat(answers) == labels_B).sum())
    seconds = time.perf_counter() - started
    return Test(segments, tokens, examples, right / examples, memory.peak() - baseline, round(seconds, 2))


@dataclass(frozen=True)
class Recall:
    """The tests of all cells, in the cells' order."""

    task: str
    trained: int
    rows: list[tuple[Cell, list[Test]]]

    @property
    def models(self) -> list[str]:
        """Labels of the models, in the order of the tables."""
        return list(dict.fromkeys(cell.model for cell, _ in self.rows))

    @property
    def counts(self) -> list[int]:
        """Numbers of segments, ascending."""
        return sorted({test.segments for _, tests in self.rows for test in tests})

    def tests(self, model: str) -> dict[int, list[Test]]:
        """Return the tests of a model's seeds, by number of segments."""
        by_count: dict[int, list[Test]] = {}
        for test in (test for cell, tests in self.rows if cell.model == model for test in tests):
            by_count.setdefault(test.segments, []).append(test)
        return by_count

    def to_json(self) -> dict[str, Any]:
        """Return what is stored."""
        rows = [
            {
                "model": cell.model,
                "seed": cell.seed,
                "settings": cell.settings,
                "tests": [asdict(test) for test in tests],
            }
            for cell, tests in self.rows
        ]
        return {**provenance(), "task": self.task, "trained_segments": self.trained, "rows": rows}


def test_cells(
    cells: Sequence[Cell], output: Path, segments: Sequence[int], most: int, device: str, begin: Callable[[str], None]
) -> Recall:
    """Test the finished cells of a folder, each length once: tests of earlier calls are read from the cells' folders.

    Args:
        cells: of one task.
        output: the folder of the grid that trained them.
        segments: numbers of segments, ascending.
        most: examples of a length at most.
        device: 'cpu' or 'cuda'.
        begin: called with what is tested now.
    """
    rows, trained = [], 0
    for cell in cells:
        folder = cell.folder(output)
        run = open_classifier(folder)
        trained = _memory_task(run).segments[-1]
        known = {test.segments: test for test in _stored(folder / RECALL) if _same(test, most)}
        for count in segments:
            begin(f"{cell}: {count:,} segments")
            if count in known:
                continue
            known[count] = test_memory(run, count, most, cell.seed, device)
            tests = [asdict(known[place]) for place in sorted(known)]
            write_json(folder / RECALL, {**provenance(), "tests": tests})
        rows.append((cell, [known[count] for count in segments]))
    return Recall(cells[0].task, trained, rows)


def _memory_task(run: FinishedRun) -> MemoryTask:
    assert isinstance(run.source.task, MemoryTask)
    return run.source.task


def _stored(path: Path) -> list[Test]:
    try:
        return [Test(**test) for test in json.loads(path.read_text(encoding="utf-8"))["tests"]]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _same(test: Test, most: int) -> bool:
    return test.failure is not None or test.examples == examples_of(test.tokens, most)


def accuracy_table(recall: Recall) -> Table:
    """Accuracy of each model at each number of segments: the mean over seeds, and the spread from lowest to highest."""
    rows = [(model, *(_accuracy(recall.tests(model)[count]) for count in recall.counts)) for model in recall.models]
    title = f"Accuracy (%) on {recall.task} by segments, trained on at most {recall.trained}"
    return Table(title, ("model", *(f"{count:,}" for count in recall.counts)), rows)


def memory_table(recall: Recall) -> Table:
    """Peak memory of a test of each model at each number of segments: the median over seeds."""
    rows = [(model, *(_memory(recall.tests(model)[count]) for count in recall.counts)) for model in recall.models]
    title = f"Peak memory of a test, batch {BATCH} (MiB)"
    return Table(title, ("model", *(f"{count:,}" for count in recall.counts)), rows)


def failures(recall: Recall) -> list[str]:
    """Return a line for each model without an accuracy at some number of segments: from which on, and why."""
    lines = []
    for model in recall.models:
        failed = [test for tests in recall.tests(model).values() for test in tests if test.failure]
        if failed:
            first = min(failed, key=lambda test: test.segments)
            lines.append(f"{model}: no accuracy from {first.segments:,} segments on: {first.failure}")
    return lines


def _accuracy(tests: Iterable[Test]) -> str:
    values = [100 * test.accuracy for test in tests if test.accuracy is not None]
    if not values:
        return MISSING
    spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def _memory(tests: Iterable[Test]) -> str:
    values = [test.peak_bytes for test in tests if test.peak_bytes is not None]
    return mebibytes(int(np.median(values))) if values else MISSING


def draw_recall(recall: Recall, path: Path) -> None:
    """Write a PNG of accuracy against segments, a line a model, and of the test's peak memory; seeds are a band."""
    with figure_file(path, 11, 5.2) as figure:
        accuracy, memory = figure.subplots(1, 2, width_ratios=(3, 2))
        for index, model in enumerate(recall.models):
            tests = recall.tests(model)
            style = {**mark(index), "markersize": 5}
            answered = {
                count: [100 * test.accuracy for test in of_count if test.accuracy is not None]
                for count, of_count in tests.items()
            }
            points = sorted((count, values) for count, values in answered.items() if values)
            if not points:
                continue
            counts = [count for count, _ in points]
            accuracy.plot(counts, [np.mean(values) for _, values in points], label=model, **style)
            lowest, highest = ([choose(values) for _, values in points] for choose in (min, max))
            accuracy.fill_between(counts, lowest, highest, color=style["color"], alpha=0.15, linewidth=0)
            peaks = [np.median([t.peak_bytes for t in tests[count] if t.peak_bytes is not None]) for count in counts]
            memory.plot(counts, [peak / 2**20 for peak in peaks], **style)
        for axes in (accuracy, memory):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
            axes.axvline(recall.trained, color="grey", linestyle="--", linewidth=1)
            axes.set_xlabel("segments of an example")
        accuracy.annotate("longest in training", (recall.trained, 3), fontsize=9, color="grey", rotation=90, ha="right")
        accuracy.set(title=f"Accuracy on {recall.task} (%)", ylim=(0, 103))
        memory.set(title=f"Peak memory of a test, batch {BATCH} (MiB)")
        memory.set_ylim(bottom=0)
        figure.legend(*accuracy.get_legend_handles_labels(), loc="outside lower left", ncols=3)
