"""What a person sees while a grid runs."""

import io

import pytest
from rich.console import Console

from rmaat.compare.grid.live import Board
from rmaat.compare.grid.process import LOG


def board(jobs, finished, terminal):
    console = Console(
        file=io.StringIO(), force_terminal=terminal, width=120, color_system=None, markup=False, soft_wrap=True
    )
    return Board(jobs, finished, console), console


def fields(board):
    return [list(column.cells) for column in board.table().columns]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_field_shows_its_seeds_as_they_go_on(jobs, record, terminal):
    told, console = board(jobs, [record(jobs[0].cell, test_accuracy=0.375)], terminal)
    with told:
        assert fields(told) == [["rmaat", "rmt"], ["37.50 | ·", "· | ·"]]
        told.started(jobs[1])
        assert fields(told)[1] == ["37.50 | ·", "starting | ·"]
        jobs[1].folder.mkdir(parents=True)
        (jobs[1].folder / LOG).write_text("\r 50%|####    | 1200/2400 [00:02<00:02]")
        assert fields(told)[1] == ["37.50 | ·", "1,200 of 2,400 | ·"]
        told.tick()
        told.ended(jobs[1], record(jobs[1].cell, "diverged", "the loss is not finite"))
        assert fields(told)[1] == ["37.50 | ·", "diverged | ·"]
    printed = console.file.getvalue()
    assert ("1,200 of 2,400" in printed) == terminal
    assert ("[2/4] listops_short rmt seed 0: diverged: the loss is not finite, after" in printed) != terminal
    assert ("listops_short rmt seed 0 started" in printed) != terminal
