"""The HTML of an explanation: marks, ranks, and texts that stay texts."""

from html.parser import HTMLParser

from rmaat.problems import SINGLE_LABEL
from rmaat.serve import drawing
from rmaat.serve.answers import Row
from rmaat.serve.drawing import (
    AGAINST,
    COLOURS,
    FOR,
    escaped,
    marked,
    memory_curve,
    probability_curves,
    problem,
    summary,
    table,
)
from rmaat.training.explanation import Explanation, Segment
from rmaat.training.inference import Reading
from rmaat.training.problems import PROBLEMS

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;\"'{{value}}${1+1}`"


def explanation_of(*segments: tuple[str, float], label: str = "a") -> Explanation:
    parts = tuple(Segment(text, (0.5 + c / 2, 0.5 - c / 2), c) for text, c in segments)
    return Explanation(label, (label, "b"), parts, PROBLEMS[SINGLE_LABEL])


class Page(HTMLParser):
    """The tags of an HTML text with their attributes, and the characters outside them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags = list[tuple[str, dict[str, str | None]]]()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_segments_have_colours_by_sign_and_size_and_the_most_decisive_ones_a_frame():
    page = Page(marked(explanation_of(("one ", 0.1), ("two ", -0.4), ("three ", 0.2)), passages=2))
    segments = [(tag, attributes) for tag, attributes in page.tags if "title" in attributes]
    assert [tag for tag, _ in segments] == ["span", "mark", "mark"]
    assert [attributes["title"] for _, attributes in segments] == [
        "segment 1: +10.0 points",
        "segment 2: -40.0 points",
        "segment 3: +20.0 points",
    ]
    styles = [str(attributes["style"]) for _, attributes in segments]
    assert styles[0] == f"background: rgba({FOR}, 0.14)"
    assert styles[1].startswith(f"background: rgba({AGAINST}, 0.55)")
    assert page.text.endswith("one 1 · -40.0 two 2 · +20.0 three ")


def test_a_text_is_shown_as_it_is_and_adds_no_tag():
    explanation = explanation_of((HOSTILE, 0.0), label=HOSTILE)
    row = Row(1, Reading(HOSTILE, (1.0, 0.0), 1, 10, False), 0.1, 2**20)
    parts = [marked(explanation, 1), summary(explanation, row), problem(HOSTILE), escaped(HOSTILE)]
    for html in (*parts, table(explanation), probability_curves(explanation, 1)):
        page = Page(html)
        assert HOSTILE[:15] in page.text
        assert html not in parts or HOSTILE in page.text
        assert not {tag for tag, _ in page.tags} & {"script", "img"}
        assert not {"{", "}", "$", "`"} & set(html), "signs of Gradio's templates"


def test_the_summary_says_what_was_read():
    explanation = explanation_of(("one", 0.5))
    text = Page(summary(explanation, Row(3, Reading("one", (0.75, 0.25), 40, 528, False), 1.25, 3 * 2**20))).text
    assert text.startswith("a 75.0%3 of 40 segments · 1.2 s · state 528 bytes · memory 3.0 MiB")
    cut = Page(summary(explanation, Row(40, Reading("one", (0.75, 0.25), 40, 528, True), 1.25, 2**20))).text
    assert "40 of 40 segments, the model reads no more of this text" in cut


def points(html: str) -> list[list[tuple[float, float]]]:
    """The points of each curve."""
    lines = [str(attributes["points"]) for tag, attributes in Page(html).tags if tag == "polyline"]
    return [[(float(x), float(y)) for x, y in (point.split(",") for point in line.split())] for line in lines]


def test_a_curve_goes_from_left_to_right_and_its_axis_ends_with_the_text():
    html = probability_curves(explanation_of(("one", 1.0), ("two", -1.0), ("three", 0.0)), 5)
    first, second = points(html)
    left, step = drawing.LEFT, drawing.WIDTH / 4
    assert [x for x, _ in first] == [left, left + step, left + 2 * step]
    assert [y for _, y in first] == [drawing.UPPER, drawing.UPPER + 220, drawing.UPPER + 110]
    assert [y for _, y in second] == [drawing.UPPER + 220, drawing.UPPER, drawing.UPPER + 110]
    assert COLOURS[0] in html
    assert "● a" in Page(html).text
    assert Page(html).text.endswith("050100segment 15"), "0, 50 and 100 percent, segments 1 and 5"


def test_flat_memory_is_a_flat_line():
    rows = [Row(number, Reading("", (1.0,), 4, 8, False), 0.0, 2**30) for number in (1, 2, 3)]
    (line,) = points(memory_curve(rows))
    assert len({y for _, y in line}) == 1
    assert len(line) == 3


def test_a_text_of_one_segment_has_a_point():
    assert len(points(probability_curves(explanation_of(("one", 0.2)), 1))[0]) == 1


def test_long_curves_have_few_points(monkeypatch):
    monkeypatch.setattr(drawing, "POINTS", 4)
    assert drawing.drawn(1) == [0]
    assert drawing.drawn(4) == [0, 1, 2, 3]
    assert drawing.drawn(10) == [0, 3, 6, 9]
    assert drawing.drawn(11) == [0, 3, 6, 9, 10]


def test_the_table_has_the_last_segments_first(monkeypatch):
    monkeypatch.setattr(drawing, "TABLE_ROWS", 2)
    page = Page(table(explanation_of(("one", 0.1), ("two\n 2", 0.2), ("three", -0.4))))
    assert page.text == "segment%changebeginning330.0-40.0three260.0+20.0two 2"


def test_no_label_has_the_colour_of_a_change():
    changes = {"#" + "".join(f"{int(x):02x}" for x in colour.split(", ")) for colour in (FOR, AGAINST)}
    assert len(set(COLOURS) | changes) == len(COLOURS) + 2
