"""The parts of the page as HTML. Every text of the user is escaped here."""

from collections.abc import Sequence
from html import escape

from rmaat.errors import printable, shortened
from rmaat.machine.units import mebibytes
from rmaat.serve.answers import Row
from rmaat.training.explanation import Explanation

FOR, AGAINST = "31, 119, 180", "214, 39, 40"
"""Colours of segments that raised the label's probability and that lowered it, as RGB."""

COLOURS = ("#2ca02c", "#ff7f0e", "#9467bd", "#17becf", "#8c564b", "#e377c2", "#bcbd22", "#7f7f7f")
"""Those of the curves, in the order of the labels. Neither is blue or red, which are signs of changes."""

LEFT, WIDTH, UPPER = 44, 640, 8
"""Pixels of a figure: beside the curves, of the curves, and above them."""

POINTS = 500
"""Most points of a curve, about."""

TABLE_ROWS = 200
"""Most rows of the table. The endpoint `stream` sends all."""

BEGINNING = 80
"""Most characters of a segment in the table."""

LONGEST_NAME = 40
"""Most characters of a label in a legend."""

TEMPLATE_SIGNS = {ord(sign): f"&#{ord(sign)};" for sign in "{}$`"}

STRONGEST = 0.55
"""Opacity of the colour of the segment that changed the probability most."""


def escaped(text: str) -> str:
    """Return HTML that shows a text as it is; braces and dollars are signs of Gradio's templates."""
    return escape(text).translate(TEMPLATE_SIGNS)


def summary(explanation: Explanation, row: Row) -> str:
    """Return the label and its probability, what was read, and the memory that it took."""
    label = escaped(printable(explanation.label))
    reading = row.reading
    amount = f"{row.number:,} of {reading.segments:,} segments"
    if reading.truncated:
        amount += ", the model reads no more of this text"
    return (
        f'<div class="answer"><strong>{label}</strong> <span>{100 * explanation.output:.1f}%</span></div>'
        f'<progress max="{reading.segments}" value="{row.number}"></progress>'
        f'<div class="facts">{amount} · {row.seconds:.1f} s · state {reading.state_bytes:,} bytes · '
        f"memory {mebibytes(row.memory_bytes)} MiB</div>"
    )


def problem(message: str) -> str:
    """Return a message about a mistake."""
    return f'<div class="problem" role="alert">{escaped(message)}</div>'


def probability_curves(explanation: Explanation, segments: int) -> str:
    """Return a figure of the probability of the leading labels after each segment.

    Args:
        explanation: that of the text up to here.
        segments: the number of segments of the whole text.
    """
    curves = [
        (
            explanation.label_names[label],
            COLOURS[label % len(COLOURS)],
            [100 * segment.outputs[label] for segment in explanation.segments],
        )
        for label in explanation.leaders()
    ]
    return figure("Probability after each segment (%)", curves, segments, top=100, height=220)


def memory_curve(rows: Sequence[Row]) -> str:
    """Return a figure of the memory of the process while it read the rows."""
    sizes = [row.memory_bytes / 2**20 for row in rows]
    title = "Memory of this process (MiB)"
    return figure(title, [("", COLOURS[0], sizes)], rows[-1].reading.segments, top=1.25 * max(sizes), height=110)


def figure(
    title: str, curves: Sequence[tuple[str, str, Sequence[float]]], segments: int, top: float, height: int
) -> str:
    """Return curves over the segments of a text, as SVG.

    Args:
        title: above the figure.
        curves: name, colour, and a value for each segment from the first.
        segments: the right end of the axis.
        top: the upper end of the other axis, which begins at 0.
        height: of the area of the curves, in pixels.
    """
    bottom = height + UPPER

    def x(number: int) -> float:
        return LEFT + WIDTH * (number - 1) / max(1, segments - 1)

    def y(value: float) -> float:
        return bottom - height * value / top

    lines, legend = [], []
    for share in (0, 0.5, 1):
        value = share * top
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,.0f}</text>')
    lines.append(f'<text x="{LEFT}" y="{bottom + 16}">segment 1</text>')
    if segments > 1:
        lines.append(f'<text x="{x(segments):.1f}" y="{bottom + 16}" text-anchor="end">{segments:,}</text>')
    for name, colour, values in curves:
        places = drawn(len(values))
        points = " ".join(f"{x(place + 1):.1f},{y(values[place]):.1f}" for place in places)
        lines.append(f'<polyline points="{points}" stroke="{colour}"/>')
        lines.append(f'<circle cx="{x(len(values)):.1f}" cy="{y(values[-1]):.1f}" r="3" fill="{colour}"/>')
        if name:
            legend.append(f'<span style="color: {colour}">●</span> {escaped(shortened(printable(name), LONGEST_NAME))}')
    size = f"0 0 {LEFT + WIDTH + LEFT // 2} {bottom + 22}"
    return (
        f'<figure><figcaption>{title}<span class="legend">{" ".join(legend)}</span></figcaption>'
        f'<svg viewBox="{size}" role="img" aria-label="{title}">{"".join(lines)}</svg></figure>'
    )


def drawn(count: int) -> list[int]:
    """Return the indices of the segments that a curve shows: about `POINTS`, the first and the last."""
    step = -(-count // POINTS)
    return [*range(0, count - 1, step), count - 1]


def table(explanation: Explanation) -> str:
    """Return what `rmaat explain` prints of each segment, for the last `TABLE_ROWS` segments."""
    label = explanation.label_names.index(explanation.label)
    rows = "".join(
        f"<tr><td>{number:,}</td><td>{100 * segment.outputs[label]:.1f}</td><td>{100 * segment.change:+.1f}</td>"
        f"<td>{escaped(printable(' '.join(segment.text.split()))[:BEGINNING])}</td></tr>"
        for number, segment in list(enumerate(explanation.segments, 1))[: -TABLE_ROWS - 1 : -1]
    )
    heads = "".join(f"<th>{head}</th>" for head in ("segment", "%", "change", "beginning"))
    return f'<table class="rows"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def marked(explanation: Explanation, passages: int) -> str:
    """Return the text, each segment in the colour of its change.

    The `passages` segments that changed the probability most have a frame and their rank in front.
    """
    largest = max(abs(segment.change) for segment in explanation.segments)
    ranks = {index: rank for rank, index in enumerate(explanation.most_decisive(passages), 1)}
    parts = []
    for index, segment in enumerate(explanation.segments):
        colour = FOR if segment.change >= 0 else AGAINST
        opacity = STRONGEST * abs(segment.change) / largest if largest else 0.0
        title = f"segment {index + 1}: {100 * segment.change:+.1f} points"
        style = f"background: rgba({colour}, {opacity:.2f})"
        text = escaped(segment.text)
        if index in ranks:
            sign = f"<b>{ranks[index]} · {100 * segment.change:+.1f}</b> "
            parts.append(f'<mark style="{style}; border-color: rgb({colour})" title="{title}">{sign}{text}</mark>')
        else:
            parts.append(f'<span style="{style}" title="{title}">{text}</span>')
    label = escaped(printable(explanation.label))
    legend = (
        f'<div class="facts"><span style="background: rgba({FOR}, {STRONGEST})">Blue</span> segments raised the '
        f'probability of {label}, <span style="background: rgba({AGAINST}, {STRONGEST})">red</span> ones lowered it. '
        "Frames: the largest changes, with rank and percentage points.</div>"
    )
    return f'{legend}<div class="marked">{"".join(parts)}</div>'
