"""Checkpoints: whole or not, the newest usable one, and which are removed."""

import hashlib
import json
from pathlib import Path

import pytest

from rmaat.errors import UserError
from rmaat.training.checkpoints import (
    SEAL,
    checkpoint_damage,
    last_usable_checkpoint,
    numbered_checkpoints,
    prune,
    remove,
    remove_later,
    seal,
)


def make(folder: Path, step: int, best: int | None = None, *, sealed: bool = True) -> Path:
    """A checkpoint of three small files."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights" * step)
    (checkpoint / "optimizer.pt").write_bytes(b"moments")
    (checkpoint / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
    if sealed:
        seal(checkpoint)
    return checkpoint


def test_the_seal_has_the_size_and_sha256_of_every_other_file(tmp_path):
    checkpoint = make(tmp_path, 3)
    records = json.loads((checkpoint / SEAL).read_text())
    contents = {path.name: path.read_bytes() for path in checkpoint.iterdir() if path.name != SEAL}
    assert records == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    seal(checkpoint)
    assert json.loads((checkpoint / SEAL).read_text()) == records


def flip(path: Path) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def as_folder(path: Path) -> None:
    """Put a folder in place of a file."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "optimizer.pt").unlink(), "optimizer.pt is missing"),
        (lambda folder: flip(folder / "optimizer.pt"), "the content of optimizer.pt has changed"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"we"),
            "model.safetensors has 2 bytes instead of 56",
        ),
        (lambda folder: (folder / "trainer_state.json").write_bytes(b""), "trainer_state.json has 0 bytes"),
        (lambda folder: (folder / SEAL).write_text("[1]"), "files.json is not readable"),
        (lambda folder: (folder / SEAL).write_text('{"optimizer.pt": 3}'), "files.json is not readable"),
        (lambda folder: (folder / SEAL).write_bytes(b"\xff"), "files.json is not readable"),
        (lambda folder: as_folder(folder / SEAL), "files.json is not readable"),
        (lambda folder: as_folder(folder / "optimizer.pt"), "optimizer.pt is missing"),
    ],
)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_is_used(tmp_path, spoil, message):
    make(tmp_path, 4)
    newest = make(tmp_path, 8, best=4)
    reports: list[str] = []
    assert last_usable_checkpoint(tmp_path, reports.append) == newest
    assert reports == []
    spoil(newest)
    assert last_usable_checkpoint(tmp_path, reports.append) == tmp_path / "checkpoint-4"
    assert len(reports) == 1
    assert message in reports[0]
    assert "continues from checkpoint-4" in reports[0]
    remove_later(tmp_path / "checkpoint-4")
    assert numbered_checkpoints(tmp_path) == [tmp_path / "checkpoint-4"]


def test_interrupted_checkpoints_are_passed_over_without_a_report(tmp_path):
    make(tmp_path, 8, sealed=False)
    reports: list[str] = []
    assert last_usable_checkpoint(tmp_path, reports.append) is None
    make(tmp_path, 4)
    assert last_usable_checkpoint(tmp_path, reports.append) == tmp_path / "checkpoint-4"
    assert reports == []
    assert last_usable_checkpoint(tmp_path / "nothing") is None


@pytest.mark.parametrize("spoil", [remove, lambda folder: flip(folder / "model.safetensors")], ids=["gone", "changed"])
def test_a_checkpoint_whose_best_is_damaged_is_not_used(tmp_path, spoil):
    make(tmp_path, 2, best=2)
    spoil(make(tmp_path, 4))
    make(tmp_path, 6, best=4)
    reports: list[str] = []
    assert last_usable_checkpoint(tmp_path, reports.append) == tmp_path / "checkpoint-2"
    assert "the best checkpoint before it is checkpoint-4" in reports[0]


def test_if_all_are_damaged_that_is_an_error(tmp_path):
    for step in (4, 8):
        flip(make(tmp_path, step) / "optimizer.pt")
    with pytest.raises(UserError, match=r"checkpoint-8' is damaged: .*use --overwrite to begin anew"):
        last_usable_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("current", "best", "limit", "left"),
    [
        (8, 2, 2, [8, 2]),
        (8, 8, 2, [8, 6]),
        (8, None, 3, [8, 6, 4]),
        (8, 2, 1, [8, 2]),
        (8, 4, 9, [8, 6, 4, 2]),
    ],
)
def test_the_oldest_are_removed_but_neither_the_best_nor_the_current_one(tmp_path, current, best, limit, left):
    for step in (8, 2, 6, 4):
        make(tmp_path, step)
    make(tmp_path / "checkpoint-best", 1)
    prune(tmp_path, current, best, limit)
    assert [int(path.name.split("-")[1]) for path in numbered_checkpoints(tmp_path)] == left
    assert (tmp_path / "checkpoint-best").exists()


def test_an_interrupted_removal_leaves_nothing_that_counts_as_damaged(tmp_path, monkeypatch):
    checkpoint = make(tmp_path, 4)

    def interrupted(path: Path) -> None:
        (path / "optimizer.pt").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr("rmaat.machine.files.shutil.rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        remove(checkpoint)
    with pytest.raises(FileNotFoundError):
        checkpoint_damage(checkpoint)
