"""Tables as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

MISSING = "–"
"""The content of a field without a figure."""


@dataclass(frozen=True)
class Table:
    """A titled table; the first column is text, the others are numbers.

    Attributes:
        title: one line.
        headings: of the columns.
        rows: as many fields as headings each.
        note: a paragraph above the table, or empty.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """Return a section of Markdown, with columns that are aligned in a terminal as well."""
        rule = ["---", *("---:" for _ in self.headings[1:])]
        lines = [self.headings, rule, *self.rows]
        first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
        text = []
        for name, *numbers in lines:
            aligned = (field.rjust(width) for field, width in zip(numbers, others, strict=True))
            text.append(f"| {' | '.join([name.ljust(first), *aligned])} |")
        return "\n\n".join(filter(None, (f"## {self.title}", self.note, "\n".join(text))))
