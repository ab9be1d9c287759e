"""What a person sees while a grid runs."""

import io

import pytest
from rich.console import Console

from rmaat.grid.board import Board
from rmaat.grid.process import LOG


def fields(board):
    return [list(column.cells) for column in board.table().columns]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_field_shows_its_seeds_as_they_go_on(cells, outcome, tmp_path, terminal):
    console = Console(
        file=io.StringIO(),
        force_terminal=terminal,
        width=120,
        color_system=None,
        markup=False,
        soft_wrap=True,
    )
    folder = cells[1].folder(tmp_path)
    with Board(cells, tmp_path, [outcome(cells[0], test_accuracy=0.375)], console) as board:
        assert fields(board) == [["rmaat", "rmt"], ["37.50 | ·", "· | ·"]]
        board.started(cells[1])
        assert fields(board)[1] == ["37.50 | ·", "starting | ·"]
        folder.mkdir(parents=True)
        (folder / LOG).write_text("\r 50%|####    | 1200/2400 [00:02<00:02]")
        assert fields(board)[1] == ["37.50 | ·", "1,200 of 2,400 | ·"]
        board.tick()
        board.ended(outcome(cells[1], "diverged", "the loss is not finite"))
        assert fields(board)[1] == ["37.50 | ·", "diverged | ·"]
    printed = console.file.getvalue()
    line = "[2/4] listops_short rmt seed 0: diverged: the loss is not finite, after"
    assert ("1,200 of 2,400" in printed) == terminal
    assert (line in printed) != terminal
    assert ("listops_short rmt seed 0 started" in printed) != terminal
