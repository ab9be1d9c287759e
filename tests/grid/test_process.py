"""One cell as a process, with a program in place of `rmaat train` that leaves what a run leaves."""

import json
import stat
import sys
from dataclasses import replace

import pytest
import yaml

from rmaat.grid.outcomes import CELL_CONFIG, STATUS, read_outcomes
from rmaat.grid.process import run_cell

FAKE = f"""#!{sys.executable}
import json, os, signal, sys
from pathlib import Path
words = sys.argv[1:]
assert words[:2] == ["-m", "rmaat.grid.child"] and words[3:5] == ["train", "--config"], words
folder = Path(words[5]).parent
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([words[6], os.environ["OMP_NUM_THREADS"]]) + "\\n")
how = os.environ["HOW"]
print("\\r 1/40 [00:00]\\r 7/40 [00:01]", file=sys.stderr, end="", flush=True)
if how == "diverges":
    print("rmaat: training stopped: the loss is not finite at step 6", file=sys.stderr)
    sys.exit("\\r 7/40 [00:01]")
if how == "mistake":
    print("rmaat: error: there is no such data", file=sys.stderr)
    sys.exit(2)
if how == "breaks":
    raise MemoryError("out of it")
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
(folder / "checkpoint-4").mkdir(exist_ok=True)
(folder / "checkpoint-4" / "trainer_state.json").write_text('{{"best_global_step": 4}}')
(folder / "checkpoint-4" / "files.json").write_text("{{}}")
if how == "hangs":
    signal.pause()
facts = {{"train": {{"lengths": {{"input_ids": {{"mean": 9.5}}}}, "examples": 3}}}}
metrics = {{"test_accuracy": 0.5, "train_tokens": 7, "data": facts}}
(folder / "metrics.json").write_text(json.dumps(metrics))
"""


@pytest.fixture
def cell(cells):
    return cells[0]


@pytest.fixture
def folder(cell, tmp_path):
    return cell.folder(tmp_path)


@pytest.fixture
def attempt(cell, folder, tmp_path, monkeypatch):
    """Run a cell whose program behaves as named; `attempt.calls()` are the begun processes."""
    fake = tmp_path / "fake"
    fake.write_text(FAKE)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("rmaat.grid.process.sys.executable", str(fake))
    calls = tmp_path / "calls"
    environment = {"CALLS": str(calls), "OMP_NUM_THREADS": "3"}

    def attempt(how, stopped=lambda: False, cell=cell):
        return run_cell(cell, folder, {**environment, "HOW": how}, stopped)

    attempt.calls = lambda: [json.loads(line) for line in calls.read_text().splitlines()]
    return attempt


def changed(cell, **settings):
    return replace(cell, settings={**cell.settings, **settings})


def test_a_finished_run_is_read_from_its_folder_and_not_run_again(attempt, cell, folder, tmp_path):
    outcome = attempt("finishes")
    assert (outcome.cell, outcome.status, outcome.reason) == (cell, "finished", "")
    assert (outcome.metrics["test_accuracy"], outcome.metrics["train_tokens"]) == (0.5, 7)
    (stored,) = read_outcomes(tmp_path)
    assert (stored.cell, stored.status, stored.metrics) == (cell, "finished", outcome.metrics)
    assert json.loads((folder / STATUS).read_text())["wall_seconds"] >= 0
    assert not list(folder.glob("checkpoint-*")), "what only serves to resume is gone"
    assert attempt("breaks").status == "finished", "the metrics are there"
    assert attempt.calls() == [["--overwrite", "3"]]


def test_a_cell_is_finished_once_its_metrics_are_there(attempt, cell, folder, tmp_path):
    """The grid may be killed before it writes the status, and a power cut may damage it."""
    attempt("finishes")
    status = json.loads((folder / STATUS).read_text())
    (folder / STATUS).write_text(json.dumps({**status, "status": "begun"}))
    assert [outcome.status for outcome in read_outcomes(tmp_path)] == ["finished"]
    (folder / STATUS).write_text("")
    assert read_outcomes(tmp_path) == []
    assert attempt("breaks").status == "finished"
    assert [outcome.cell.key for outcome in read_outcomes(tmp_path)] == [cell.key]
    assert len(attempt.calls()) == 1


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("diverges", "diverged", "the loss is not finite at step 6"),
        ("mistake", "failed", "there is no such data"),
        ("breaks", "failed", "MemoryError: out of it (exit status 1"),
        ("killed", "failed", "killed by signal 9"),
    ],
)
def test_a_failure_has_a_reason(attempt, tmp_path, how, status, said):
    outcome = attempt(how)
    assert outcome.status == status
    assert said in outcome.reason
    assert outcome.final == (status == "diverged")
    (stored,) = read_outcomes(tmp_path)
    assert (stored.status, stored.reason) == (status, outcome.reason)


def test_a_process_that_cannot_be_started_is_a_failure(attempt, tmp_path, monkeypatch):
    monkeypatch.setattr("rmaat.grid.process.sys.executable", "/nowhere/python")
    outcome = attempt("finishes")
    assert outcome.status == "failed"
    assert "cannot be run: " in outcome.reason
    assert "/nowhere/python" in outcome.reason
    assert [stored.status for stored in read_outcomes(tmp_path)] == ["failed"]


def test_a_stopped_run_is_ended_and_resumed(attempt, folder, tmp_path):
    ready = folder / "checkpoint-4" / "files.json"
    assert attempt("hangs", stopped=ready.exists).status == "begun"
    assert read_outcomes(tmp_path) == []
    assert attempt("finishes").status == "finished"
    assert attempt.calls() == [["--overwrite", "3"], ["--resume", "3"]]


def test_a_run_of_other_settings_is_neither_resumed_nor_reused(attempt, cell, folder):
    other = changed(cell, max_steps=59)
    attempt("hangs", stopped=(folder / "checkpoint-4" / "files.json").exists, cell=other)
    attempt("finishes")
    attempt("finishes", cell=other)
    attempt("finishes")
    assert attempt.calls() == [["--overwrite", "3"]] * 4


def test_data_elsewhere_is_the_same_run(attempt, cell):
    attempt("finishes")
    attempt("finishes", cell=changed(cell, data_dir="moved"))
    assert len(attempt.calls()) == 1


def test_a_stopped_run_goes_on_with_data_that_has_moved(attempt, cell, folder):
    attempt("hangs", stopped=(folder / "checkpoint-4" / "files.json").exists)
    assert attempt("finishes", cell=changed(cell, data_dir="moved")).status == "finished"
    assert yaml.safe_load((folder / CELL_CONFIG).read_text())["data_dir"] == "moved"
    assert [how for how, _ in attempt.calls()] == ["--overwrite", "--resume"]
