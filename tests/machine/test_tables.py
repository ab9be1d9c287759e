"""Tables as Markdown."""

from rmaat.machine.tables import Table


def test_a_table_is_a_section_with_aligned_columns():
    table = Table("Time", ("method", "s"), [("full", "0.5"), ["one_segment", "12.25"]], "Medians.")
    assert table.markdown().splitlines() == [
        "## Time",
        "",
        "Medians.",
        "",
        "| method      |     s |",
        "| ---         |  ---: |",
        "| full        |   0.5 |",
        "| one_segment | 12.25 |",
    ]


def test_without_rows_and_note_there_are_headings():
    assert Table("Time", ("method",), []).markdown() == "## Time\n\n| method |\n| ---    |"
