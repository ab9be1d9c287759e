"""What a person sees while a grid runs."""

import io

import pytest
from rich.console import Console

from rmaat.grid.board import Board
from rmaat.grid.process import LOG


@pytest.mark.parametrize("terminal", [True, False])
def test_events_are_lines_and_a_terminal_has_bars(cells, outcome, tmp_path, terminal):
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=120,
        color_system=None,
        markup=False,
        soft_wrap=True,
    )
    folder = tmp_path / "cell"
    with Board(4, 1, console) as board:
        board.started(cells[1], folder)
        folder.mkdir()
        (folder / LOG).write_text("\r 50%|####    | 1200/2400 [00:02<00:02]")
        board.tick()
        board._bars.refresh()
        board.ended(outcome(cells[1], "diverged", "the loss is not finite"))
        board.started(cells[0], folder)
        board.ended(outcome(cells[0], test_accuracy=0.375))
    printed = console.file.getvalue()
    assert ("1200/2400" in printed) == terminal
    assert ("all cells" in printed) == terminal
    assert "listops_short rmt seed 0 started" in printed
    line = "[2/4] listops_short rmt seed 0: diverged: the loss is not finite, after 0.0 min"
    assert line in printed
    assert "[3/4] listops_short rmaat seed 0: test accuracy 37.50%, after" in printed
