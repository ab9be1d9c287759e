"""Outcomes as folders hold them."""

import json

import pytest

from rmaat.grid.outcomes import CELL_CONFIG, STATUS, read_outcomes
from rmaat.training.run_folder import METRICS


def test_the_last_outcome_of_a_cell_counts(cells, tmp_path, outcome, leave):
    first, second = cells[0].folder(tmp_path), cells[1].folder(tmp_path)
    leave(outcome(cells[0], "failed", "no room"), first)
    leave(outcome(cells[1]), second)
    assert [end.status for end in read_outcomes(tmp_path)] == ["failed", "finished"]
    leave(outcome(cells[0]), first)
    outcomes = read_outcomes(tmp_path)
    assert [(end.cell.key, end.status) for end in outcomes] == [
        (cells[0].key, "finished"),
        (cells[1].key, "finished"),
    ]
    assert outcomes[0].cell.base == cells[0].base
    assert outcomes[0].metrics["test_accuracy"] == 0.25


@pytest.mark.parametrize("name", [STATUS, CELL_CONFIG, METRICS])
@pytest.mark.parametrize("text", ["", "[1]", '{"task": "lis', "\0\0"])
def test_a_cell_with_a_damaged_file_has_no_outcome(cells, tmp_path, outcome, leave, name, text):
    for cell in cells[:2]:
        leave(outcome(cell), cell.folder(tmp_path))
    (cells[0].folder(tmp_path) / name).write_text(text)
    assert [end.cell.key for end in read_outcomes(tmp_path)] == [cells[1].key]


def test_a_run_that_has_begun_has_no_outcome(cells, tmp_path, outcome, leave):
    folder = cells[0].folder(tmp_path)
    leave(outcome(cells[0], "begun"), folder)
    assert read_outcomes(tmp_path) == []
    (folder / METRICS).write_text(json.dumps(outcome(cells[0]).metrics))
    assert [end.status for end in read_outcomes(tmp_path)] == ["finished"]


def test_a_folder_without_cells_has_no_outcomes(tmp_path):
    assert read_outcomes(tmp_path / "none") == []
