"""One cell as a process, with a program in place of `rmaat train` that leaves what a run leaves."""

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rmaat.compare.grid.process import CELL_CONFIG, LOG, run_job, steps_of

FAKE = f"""#!{sys.executable}
import json, os, signal, sys
from pathlib import Path
words = sys.argv[1:]
assert words[:2] == ["-m", "rmaat.compare.grid.child"] and words[3:5] == ["train", "--config"], words
folder = Path(words[5]).parent
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([words[6], os.environ["OMP_NUM_THREADS"]]) + "\\n")
(folder / "run.yaml").write_text(f"calcium_exponent: 0.25\\noutput_dir: {{folder}}\\ndata_dir: {{folder}}\\n")
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
(folder / "checkpoint-4" / "trainer_state.json").write_text("{{}}")
if how == "hangs":
    signal.pause()
facts = {{"train": {{"lengths": {{"input_ids": {{"mean": 9.5}}}}, "examples": 3}}}}
metrics = {{"test_accuracy": 0.5, "seed": 0, "model": "without what the cell changes", "train_tokens": 7, "data": facts}}
metrics["command"] = " ".join(["rmaat", *words[3:6]])
(folder / "metrics.json").write_text(json.dumps(metrics))
"""


@pytest.fixture
def job(jobs):
    return jobs[0]


@pytest.fixture
def attempt(job, tmp_path, monkeypatch):
    """Run the job, the program behaving as told; gives the record. `attempt.calls()` are the begun processes."""
    fake = tmp_path / "fake"
    fake.write_text(FAKE)
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("rmaat.compare.grid.process.sys.executable", str(fake))
    calls = tmp_path / "calls"
    environment = {"CALLS": str(calls), "OMP_NUM_THREADS": "3"}

    def attempt(how, stopped=lambda: False, job=job):
        return run_job(job, {**environment, "HOW": how}, stopped)

    attempt.calls = lambda: [json.loads(line) for line in calls.read_text().splitlines()]
    return attempt


def test_a_finished_run_becomes_a_line_and_is_not_run_again(attempt, job):
    record = attempt("finishes")
    assert record.key == job.cell.key
    assert (record.status, record.reason) == ("finished", "")
    assert record.values["lengths"] == {"train": {"input_ids": {"mean": 9.5}}}
    assert record.values["examples"] == {"train": 3}
    assert (record.values["test_accuracy"], record.values["train_tokens"]) == (0.5, 7)
    assert record.values["config"] == {"calcium_exponent": 0.25}, "as the run resolved it"
    assert record.values["command"] == f"rmaat train --config {job.cell.folder(Path())}/cell.yaml"
    assert str(job.folder) not in json.dumps(record.values), "what is passed on names no folder of this machine"
    assert record.values["base"] == job.cell.base
    assert not list(job.folder.glob("checkpoint-*")), "what only serves to resume is gone"
    assert attempt("breaks").status == "finished", "found there"
    assert attempt.calls() == [["--overwrite", "3"]]


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("diverges", "diverged", "the loss is not finite at step 6"),
        ("mistake", "failed", "there is no such data"),
        ("breaks", "failed", "MemoryError: out of it (exit status 1"),
        ("killed", "failed", "killed by signal 9"),
    ],
)
def test_what_went_wrong_is_told(attempt, job, how, status, said):
    record = attempt(how)
    assert record.status == status
    assert said in record.reason
    assert record.final == (status == "diverged")
    assert record.values["settings"]["seed"] == 0


def test_a_stopped_run_is_ended_and_resumed(attempt, job):
    ready = job.folder / "checkpoint-4" / "trainer_state.json"
    assert attempt("hangs", stopped=ready.exists) is None
    assert steps_of(job.folder) == (7, 40)
    assert attempt("finishes").status == "finished"
    assert attempt.calls() == [["--overwrite", "3"], ["--resume", "3"]]


def test_what_was_left_by_a_run_of_other_settings_is_not_taken_for_this_one(attempt, job):
    other = replace(job, cell=replace(job.cell, settings={**job.cell.settings, "max_steps": 59}))
    attempt("hangs", stopped=(job.folder / "checkpoint-4" / "trainer_state.json").exists, job=other)
    attempt("finishes")
    attempt("finishes", job=other)
    attempt("finishes")
    assert attempt.calls() == [["--overwrite", "3"]] * 4


def test_data_elsewhere_is_the_same_run(attempt, job):
    attempt("finishes")
    attempt("finishes", job=replace(job, cell=replace(job.cell, settings={**job.cell.settings, "data_dir": "moved"})))
    assert len(attempt.calls()) == 1


def test_a_stopped_run_goes_on_with_data_that_has_moved(attempt, job):
    ready = job.folder / "checkpoint-4" / "trainer_state.json"
    attempt("hangs", stopped=ready.exists)
    moved = replace(job, cell=replace(job.cell, settings={**job.cell.settings, "data_dir": "moved"}))
    assert attempt("finishes", job=moved).status == "finished"
    assert yaml.safe_load((job.folder / CELL_CONFIG).read_text())["data_dir"] == "moved"
    assert [how for how, _ in attempt.calls()] == ["--overwrite", "--resume"]


def test_a_run_that_has_not_begun_has_no_steps(tmp_path):
    assert steps_of(tmp_path) is None
    (tmp_path / LOG).write_text("reading data\n")
    assert steps_of(tmp_path) is None


def test_a_cell_ends_with_the_grid_that_started_it(tmp_path):
    """The parent is killed outright; the child, which would wait for ever, must be gone."""
    waits = "from rmaat.compare.grid.child import end_with; import os, signal; end_with(os.getppid()); "
    waits += "print(os.getpid(), flush=True); signal.pause()"
    parent = (
        "import subprocess, sys, signal; "
        f"subprocess.Popen([sys.executable, '-c', {waits!r}], start_new_session=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    child = int(process.stdout.readline())
    assert Path(f"/proc/{child}").exists() or os.name != "posix"
    process.kill()
    process.wait()
    assert process.stdout.read() == b"", "the pipe closes once the child, which holds it too, has ended"
    process.stdout.close()
