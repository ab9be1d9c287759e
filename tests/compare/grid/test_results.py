"""The file of results: whole lines survive, one grid writes at a time."""

import json
import subprocess
import sys

import pytest

from rmaat.compare.grid.results import RESULTS, append, claimed, mend, read
from rmaat.errors import UserError


def test_the_last_line_of_a_cell_counts(cells, tmp_path, record):
    for line in (record(cells[0], "failed", "no room"), record(cells[1]), record(cells[0])):
        append(tmp_path, line)
    found = read(tmp_path)
    assert {key: line.status for key, line in found.records.items()} == {
        cells[0].key: "finished",
        cells[1].key: "finished",
    }
    assert found.damaged == 0


@pytest.mark.parametrize("kept", [1, 0.5])
def test_a_file_cut_anywhere_keeps_its_whole_lines_and_can_be_added_to(cells, tmp_path, record, kept):
    for cell in cells[:3]:
        append(tmp_path, record(cell))
    path = tmp_path / RESULTS
    lines = path.read_bytes().splitlines(keepends=True)
    last = lines[2]
    path.write_bytes(b"".join(lines[:2]) + last[: len(last) - 1 if kept == 1 else len(last) // 2])
    found = mend(tmp_path)
    whole = 3 if kept == 1 else 2
    assert (len(found.records), found.damaged) == (whole, 3 - whole)
    append(tmp_path, record(cells[3]))
    parsed = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["seed"] for line in parsed] == [cell.seed for cell in [*cells[:whole], cells[3]]]
    assert read(tmp_path).damaged == 0


def test_lines_that_are_no_cells_are_left_out(cells, tmp_path, record):
    (tmp_path / RESULTS).write_text('[1]\n{"task": "listops"}\n\x00\x00\n')
    append(tmp_path, record(cells[0]))
    found = read(tmp_path)
    assert list(found.records) == [cells[0].key]
    assert found.damaged == 3


def test_a_folder_without_results_is_empty(tmp_path):
    assert read(tmp_path / "none").records == {}


def test_a_second_grid_is_refused_until_the_first_is_gone(tmp_path):
    script = f"""
import sys
from pathlib import Path
from rmaat.compare.grid.results import claimed
with claimed(Path({str(tmp_path)!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another grid is writing"), claimed(tmp_path):
            pass
    finally:
        process.kill()
        process.communicate()
    with claimed(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), claimed(tmp_path / "file" / "grid"):
        pass
