"""Pathfinder as a task: generated archives, and the reader of the release."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.tasks import TASKS, load
from rmaat.tasks.base import Counts
from rmaat.tasks.generate import generate
from rmaat.tasks.pathfinder.generate import generate_images
from rmaat.tasks.pathfinder.task import PATHFINDER32, PATHFINDER32_EASY
from rmaat.tasks.statistics import part_statistics

COUNTS = Counts(train=30, validation=12, test=10)


def put_release(data_dir: Path, difficulty: str = "curv_baseline", count: int = 40) -> Path:
    """The layout of the published release: `sample_172` of `imgs/0` is there and empty."""
    folder = data_dir / "lra_release" / "lra_release" / "pathfinder32" / difficulty
    images, labels = generate_images("easy", count, seed=1)
    for block in range(2):
        (folder / "imgs" / str(block)).mkdir(parents=True)
        (folder / "metadata").mkdir(exist_ok=True)
        lines = []
        for i in range(block, count, 2):
            name = f"sample_{i + 172}.png"
            path = folder / "imgs" / str(block) / name
            Image.fromarray(images[i]).save(path)
            lines.append(f"imgs/{block} {name} {i} {labels[i]} 1.0 6 5\n")
        (folder / "metadata" / f"{block}.npy").write_text("".join(lines))
    (folder / "imgs" / "0" / "sample_172.png").write_bytes(b"")
    return folder


def test_generated_parts_are_balanced_and_independent(tmp_path: Path) -> None:
    done: list[int] = []
    generate(PATHFINDER32_EASY, tmp_path, 3, COUNTS, progress=done.append)
    assert sum(done) == COUNTS.total()
    dataset = load("pathfinder32_easy", tmp_path)
    assert [len(part) for part in dataset.values()] == [30, 12, 10]
    assert [sum(part["labels"]) for part in dataset.values()] == [15, 6, 5]
    rows = [{bytes(ids) for ids in part["input_ids"]} for part in dataset.values()]
    assert len(set.union(*rows)) == 52
    generate(PATHFINDER32_EASY, tmp_path / "other", 3, Counts(train=2, validation=4, test=10))
    other = load("pathfinder32_easy", tmp_path / "other")
    assert other["test"].to_dict() == dataset["test"].to_dict()
    assert other["validation"][:]["input_ids"] != dataset["validation"][:4]["input_ids"]  # labels are balanced anew
    assert load("pathfinder32_easy", tmp_path, seed=9)["train"].cache_files == dataset["train"].cache_files


def test_the_release_is_read_and_its_empty_image_told(tmp_path: Path) -> None:
    folder = put_release(tmp_path)
    dataset = load("pathfinder32_easy", tmp_path)
    assert sum(map(len, dataset.values())) == 39
    assert sum(len(part_statistics(part).notes) for part in dataset.values()) == 1
    assert ["skipped 1 empty image"] in [list(part_statistics(part).notes) for part in dataset.values()]
    label_of = {}
    for path in sorted((folder / "metadata").iterdir()):
        for line in path.read_text().splitlines():
            inner, name, _, label = line.split()[:4]
            image = folder / inner / name
            if image.stat().st_size:
                label_of[np.asarray(Image.open(image)).tobytes()] = int(label)
    found = {bytes(row["input_ids"]): row["labels"] for part in dataset.values() for row in part}
    assert found == label_of
    assert load("pathfinder32_easy", tmp_path, seed=5)["test"].to_dict() == dataset["test"].to_dict()


def test_the_release_is_checked_and_not_shadowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = put_release(tmp_path)
    assert main(["data", "pathfinder32_easy", "--data_dir", str(tmp_path)]) == 0
    assert "pathfinder32_easy: " in capsys.readouterr().out
    next((folder / "imgs" / "1").iterdir()).unlink()
    assert main(["data", "pathfinder32_easy", "--data_dir", str(tmp_path)]) == 2
    assert "unpack the release again" in capsys.readouterr().err
    assert not (tmp_path / "pathfinder32_easy").exists()


def test_damage_to_the_release_is_told(tmp_path: Path) -> None:
    folder = put_release(tmp_path)
    metadata, image = folder / "metadata" / "1.npy", folder / "imgs" / "1" / "sample_175.png"
    whole = image.read_bytes()
    for damage, word in ((b"", "cannot be read"), (whole[:40], "cannot be read"), (b"text", "cannot be read")):
        image.write_bytes(damage)
        with pytest.raises(UserError, match=rf"sample_175\.png.*{word}"):
            load("pathfinder32_easy", tmp_path)
    Image.new("L", (31, 32)).save(image)
    with pytest.raises(UserError, match="31 x 32 pixels, not 32 x 32"):
        load("pathfinder32_easy", tmp_path)
    # The size is compared before anything is unpacked.
    image.write_bytes(image.read_bytes()[:50])
    with pytest.raises(UserError, match="31 x 32 pixels, not 32 x 32"):
        load("pathfinder32_easy", tmp_path)
    image.unlink()
    with pytest.raises(UserError, match=r"sample_175\.png is missing"):
        load("pathfinder32_easy", tmp_path)
    for line, word in (
        ("imgs/1 a.png 3 2 1", "label of 0 or 1"),
        ("imgs/1 a.png", "label of 0 or 1"),
        ("../../x a.png 3 1 1", "leads out of"),
        ("/etc passwd 3 1 1", "leads out of"),
    ):
        metadata.write_text(f"imgs/0 sample_174.png 2 0 1\n{line}\n")
        with pytest.raises(UserError, match=rf"1\.npy, line 2: .*{word}"):
            load("pathfinder32_easy", tmp_path)
    metadata.unlink()
    metadata.mkdir()
    with pytest.raises(UserError, match=r"1\.npy cannot be read \(it is no file\)"):
        load("pathfinder32_easy", tmp_path)


def test_own_files_come_first_and_the_remedy_is_told(tmp_path: Path) -> None:
    put_release(tmp_path)
    generate(PATHFINDER32_EASY, tmp_path, 0, COUNTS)
    assert len(load("pathfinder32_easy", tmp_path)["train"]) == 30
    with pytest.raises(UserError, match=r"pathfinder32/train\.npz is missing .*rmaat data pathfinder32 "):
        PATHFINDER32.sources(tmp_path)


def test_difficulty_is_in_the_name() -> None:
    assert [TASKS[f"pathfinder32{suffix}"].difficulty for suffix in ("", "_intermediate", "_easy")] == [
        "hard",
        "intermediate",
        "easy",
    ]
