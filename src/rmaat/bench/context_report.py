"""Tables and figures of `rmaat compare context`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter

from rmaat.bench.context import ContextScore, ReaderScore, perplexity
from rmaat.bench.context_prompts import TASKS
from rmaat.bench.figures import figure_file, mark
from rmaat.machine.tables import MISSING, Table
from rmaat.machine.units import mebibytes

PANELS = 3
"""Panels side by side in the figure of needles."""


def cache_tables(scores: Sequence[ContextScore]) -> list[Table]:
    """Return a table for each task and length, a row for each cache and share."""
    keys = dict.fromkeys((score.task, score.length) for score in scores)
    return [_table(task, length, [s for s in scores if (s.task, s.length) == (task, length)]) for task, length in keys]


def _table(task: str, length: int, scores: Sequence[ContextScore]) -> Table:
    measured = ("right (%)", "by depth (%)") if TASKS[task].needles else ("perplexity", "tokens/s")
    rows = []
    for score in scores:
        if score.accuracy is None:
            values = (f"{perplexity(score):.2f}", f"{score.tokens_per_second:.1f}")
        else:
            values = (f"{100 * score.accuracy:.0f}", " ".join(f"{100 * x:.0f}" for x in score.accuracy_by_depth))
        rows.append((score.cache, f"{100 * score.share:g}%", mebibytes(score.held_bytes), *values))
    title = f"{task}, {length:,} tokens: {TASKS[task].summary}"
    return Table(title, ("cache", "of the prompt", "MiB held", *measured), rows)


def reader_table(scores: Sequence[ReaderScore]) -> Table:
    """Return the table of the models that read whole texts, and of the programs that compress them."""
    rows = [
        (
            score.name,
            f"{score.bits_per_byte:.3f}",
            MISSING if score.num_parameters is None else f"{score.num_parameters:,}",
            MISSING if score.peak_bytes is None else mebibytes(score.peak_bytes),
            MISSING if score.seconds is None else f"{score.seconds:,.1f}",
        )
        for score in scores
    ]
    return Table("Whole texts", ("reader", "bits per byte", "parameters", "peak MiB", "s"), rows)


def draw_needles(scores: Sequence[ContextScore], task: str, path: Path) -> None:
    """Write a PNG of the right answers by depth, a panel for each cache, a row for each length and share."""
    scores = [score for score in scores if score.task == task]
    caches = list(dict.fromkeys(score.cache for score in scores))
    # The first row of panels has the full cache, which has one share only.
    longest = max(sum(score.cache == cache for score in scores) for cache in caches)
    lines = -(-len(caches) // PANELS)
    with figure_file(path, 4.2 * min(len(caches), PANELS) + 1, (1.2 + 0.3 * longest) * lines) as figure:
        panels = figure.subplots(lines, min(len(caches), PANELS), squeeze=False).flat
        for axes, cache in zip(panels, caches, strict=False):
            rows = sorted((s for s in scores if s.cache == cache), key=lambda s: (s.length, s.share))
            shares = np.array([row.accuracy_by_depth for row in rows])
            image = axes.imshow(100 * shares, vmin=0, vmax=100, cmap="viridis", aspect="auto")
            depths = shares.shape[1]
            axes.set_xticks(range(depths), [f"{100 * i / max(depths - 1, 1):.0f}" for i in range(depths)])
            axes.set_yticks(range(len(rows)), [f"{row.length:,}, {100 * row.share:g}%" for row in rows])
            axes.set(title=cache, xlabel="depth (%)")
            axes.grid(visible=False)
        for axes in list(panels):
            axes.set_visible(False)
        figure.colorbar(image, ax=figure.axes, label="right answers (%)")
        figure.suptitle(f"{task}: tokens of the prompt, share held", x=0.01, ha="left")


def draw_readers(scores: Sequence[ReaderScore], path: Path) -> None:
    """Write a PNG of bits per byte against the place in a text; a compressing program is a level line."""
    with figure_file(path, 8, 4.8) as figure:
        axes = figure.subplots()
        for index, score in enumerate(scores):
            if not score.by_place:
                axes.axhline(score.bits_per_byte, linestyle="--", linewidth=1.2, color=mark(index)["color"])
                axes.text(1, score.bits_per_byte, score.name, transform=axes.get_yaxis_transform(), va="center")
                continue
            places = [(place["first"] + place["last"]) / 2 for place in score.by_place]
            bits = [place["bits_per_byte"] for place in score.by_place]
            axes.plot(places, bits, linewidth=1.6, markersize=5.5, label=score.name, **mark(index))
        axes.set(xscale="log", xlabel="place in a text (tokens)", ylabel="bits per byte")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.legend()
