"""Tables and remarks print the user's words as they are: brackets are no markup."""

from rich.table import Table

from rmaat.tasks.statistics import PartStatistics, print_statistics
from rmaat.terminal import console

WORDS = "[/] [bold]x[/bold] :smile: [link=file:///x]y"


def test_the_console_prints_brackets(capsys):
    table = Table(title=WORDS)
    table.add_column(WORDS)
    table.add_row(WORDS)
    output = console()
    output.width = 200
    output.print(table)
    output.print(WORDS)
    assert capsys.readouterr().out.count(WORDS) == 4


def test_statistics_with_labels_of_markup(capsys):
    part = PartStatistics(examples=2, classes={"[/]": 1, "a\x1b[31m": 1}, lengths={}, notes=["from [/y]"])
    print_statistics({"train": part}, console())
    printed = capsys.readouterr().out
    assert r"train: [/]: 1, a\x1b[31m: 1" in printed
    assert "train: from [/y]" in printed


def test_progress_with_a_description_of_markup(monkeypatch):
    from rich.console import Console

    from rmaat.cli import progress

    monkeypatch.setattr(progress, "console", lambda stderr: Console(force_terminal=True, quiet=True))
    with progress.count_bar("[/]", 2) as advance:
        advance(1)
