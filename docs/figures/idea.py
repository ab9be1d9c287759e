"""Draw docs/figures/idea.svg: segments, memory, retention and replay in one picture.

python docs/figures/idea.py
"""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

SEGMENTS = 4
WIDTH, GAP = 2.3, 1.25
TOKEN, MEMORY, LAYERS, REPLAYED = "#c9d7ea", "#e8a33d", "#f3f3f3", "#b04a4a"


def main() -> None:
    """Write the picture beside this script."""
    with mpl.rc_context({"font.size": 9.5, "svg.hashsalt": "rmaat", "svg.fonttype": "path"}):
        figure = Figure(figsize=(10.4, 4.3))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-0.7, SEGMENTS * (WIDTH + GAP) + 1.15), ylim=(-2.35, 3.65))
        axes.axis("off")
        for index in range(SEGMENTS):
            draw_segment(axes, index)
        draw_ends(axes)
        draw_backward(axes)
        figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


def left(index: int) -> float:
    """Return the left edge of a segment's block."""
    return index * (WIDTH + GAP)


def draw_segment(axes: Axes, index: int) -> None:
    """Draw one segment's layers, its tokens below, and the memory that it hands on."""
    x = left(index)
    box = FancyBboxPatch((x, 0.9), WIDTH, 1.3, boxstyle="round,pad=0.02", facecolor=LAYERS, edgecolor="0.3")
    axes.add_patch(box)
    axes.text(x + WIDTH / 2, 1.72, f"segment {index + 1}", ha="center", weight="bold")
    axes.text(x + WIDTH / 2, 1.22, "astromorphic\nattention layers", ha="center", va="center", fontsize=8.5)
    for place in range(7):
        axes.add_patch(Rectangle((x + 0.12 + 0.3 * place, 0.15), 0.24, 0.24, facecolor=TOKEN, edgecolor="0.4", lw=0.7))
    arrow(axes, (x + WIDTH / 2, 0.45), (x + WIDTH / 2, 0.86))
    if index < SEGMENTS - 1:
        arrow(axes, (x + WIDTH + 0.06, 1.55), (x + WIDTH + GAP - 0.06, 1.55))
        draw_memory(axes, x + WIDTH + GAP / 2, 1.55)
        axes.text(x + WIDTH + GAP / 2, 1.98, rf"$\times\,RF({index + 1},T)$", ha="center", color="#9a6310", fontsize=9)


def draw_memory(axes: Axes, x: float, y: float) -> None:
    """Draw two memory tokens, centred."""
    for place in (-1, 0):
        axes.add_patch(
            Rectangle((x + 0.26 * place, y - 0.12), 0.24, 0.24, facecolor=MEMORY, edgecolor="0.3", lw=0.7, zorder=3)
        )


def draw_ends(axes: Axes) -> None:
    """Draw the class at the end, and what the parts are."""
    end = left(SEGMENTS - 1) + WIDTH
    arrow(axes, (end + 0.06, 1.55), (end + 0.6, 1.55))
    axes.text(end + 0.68, 1.55, "class", va="center")
    axes.text(left(0), -0.22, "a long sequence, cut into segments", va="center", color="0.3", fontsize=9)
    middle = left(1) + WIDTH + GAP / 2
    axes.annotate(
        "memory tokens, scaled by the retention factor of a simulated astrocyte",
        (middle, 2.3),
        (middle, 3.2),
        ha="center",
        color="#9a6310",
        arrowprops={"arrowstyle": "-", "color": MEMORY, "lw": 1},
    )


def draw_backward(axes: Axes) -> None:
    """Draw the way back: the memories are stored, each segment is computed again."""
    y = -1.15
    for index in range(SEGMENTS):
        x = left(index)
        style = "solid" if index == 1 else "dashed"
        box = FancyBboxPatch(
            (x + 0.25, y - 0.28),
            WIDTH - 0.5,
            0.56,
            boxstyle="round,pad=0.02",
            facecolor="#f6e3e3" if index == 1 else "none",
            edgecolor=REPLAYED,
            linestyle=style,
        )
        axes.add_patch(box)
        label = "computed again" if index == 1 else "freed" if index > 1 else "later"
        axes.text(x + WIDTH / 2, y, label, ha="center", va="center", color=REPLAYED, fontsize=8.5)
        if index < SEGMENTS - 1:
            draw_memory(axes, x + WIDTH + GAP / 2, y + 0.02)
            arrow(axes, (x + WIDTH + GAP + 0.2, y - 0.42), (x + WIDTH - 0.2, y - 0.42), REPLAYED)
    axes.text(
        (left(SEGMENTS - 1) + WIDTH) / 2,
        y - 0.95,
        "backward by replay: only the memory between segments is stored; one segment's activations are alive at a time",
        ha="center",
        color=REPLAYED,
    )


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str = "0.3") -> None:
    """Draw an arrow."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=color, lw=1.1))


if __name__ == "__main__":
    main()
