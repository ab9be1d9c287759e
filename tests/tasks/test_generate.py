"""Generated files: left alone, refused or replaced; whole or not there."""

import os
import re
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.tasks import load
from rmaat.tasks.base import Counts
from rmaat.tasks.generate import generate
from rmaat.tasks.listops import LISTOPS_SHORT

COUNTS = Counts(train=20, validation=5, test=5)


def contents(data_dir: Path) -> dict[str, bytes]:
    folder = data_dir / "listops_short"
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_made_left_alone_refused_replaced(tmp_path: Path) -> None:
    done: list[int] = []
    assert generate(LISTOPS_SHORT, tmp_path, 0, COUNTS, progress=done.append)
    assert sum(done) == COUNTS.total()
    assert tuple(map(len, load("listops_short", tmp_path).values())) == (20, 5, 5)
    first = contents(tmp_path)
    assert set(first) == {*LISTOPS_SHORT.file_names, "settings.json"}
    assert not generate(LISTOPS_SHORT, tmp_path, 0, COUNTS)
    with pytest.raises(UserError, match=r"seed 0 there, 1 asked for.*--overwrite true"):
        generate(LISTOPS_SHORT, tmp_path, 1, COUNTS)
    assert contents(tmp_path) == first
    assert generate(LISTOPS_SHORT, tmp_path, 1, COUNTS, overwrite=True)
    assert set(contents(tmp_path).items()).isdisjoint(first.items())


def test_incomplete_or_foreign_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    generate(LISTOPS_SHORT, tmp_path, 0, COUNTS)
    (tmp_path / "listops_short" / "basic_val.tsv").unlink()
    with pytest.raises(UserError, match=r"only basic_train\.tsv, basic_test\.tsv; give --overwrite"):
        generate(LISTOPS_SHORT, tmp_path, 0, COUNTS)
    for content in ("{", "[]", '{"seed": 0}', '{"seed": 0, "counts": 3}', '{"seed": 0, "counts": {"train": 1}}'):
        (tmp_path / "listops_short" / "settings.json").write_text(content)
        with pytest.raises(UserError, match="files without readable settings"):
            generate(LISTOPS_SHORT, tmp_path, 0, COUNTS)


def test_a_damaged_file_is_not_there_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(LISTOPS_SHORT, tmp_path, 0, COUNTS)
    train = tmp_path / "listops_short" / "basic_train.tsv"
    whole = train.read_bytes()
    train.write_bytes(b"\n".join(whole.split(b"\n")[:11]) + b"\n")  # half of it, and every line right
    word = r"basic_train\.tsv is damaged .*settings\.json; make it again .*--num_train 20 .*--overwrite true`"
    with pytest.raises(UserError, match=word):
        generate(LISTOPS_SHORT, tmp_path, 0, COUNTS)
    assert main(["data", "listops_short", "--data_dir", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert re.search(word, captured.err)
    assert captured.out == ""
    assert generate(LISTOPS_SHORT, tmp_path, 0, COUNTS, overwrite=True)
    assert train.read_bytes() == whole
    assert not generate(LISTOPS_SHORT, tmp_path, 0, COUNTS)


def test_no_part_may_be_empty() -> None:
    with pytest.raises(UserError, match="validation part needs at least 1 example, got 0"):
        Counts(1, 0, 1)


def test_a_full_disk_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    monkeypatch.setattr(LISTOPS_SHORT, "write", None)
    with pytest.raises(UserError, match="its disk has 0 MB free"):
        generate(LISTOPS_SHORT, tmp_path, 0, COUNTS)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"listops_short cannot be written .*--data_dir"):
        generate(LISTOPS_SHORT, tmp_path / "file", 0, COUNTS)


def test_a_disk_that_fills_up_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(LISTOPS_SHORT, tmp_path, 0, COUNTS)
    before = contents(tmp_path)

    def fill_up(folder: Path, *arguments: object) -> None:
        (folder / "basic_train.tsv").write_text("half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(LISTOPS_SHORT, "write", fill_up)
    with pytest.raises(UserError, match="No space left on device"):
        generate(LISTOPS_SHORT, tmp_path, 1, COUNTS, overwrite=True)
    assert contents(tmp_path) == before


class Cut(BaseException):
    """Stands for a kill: nothing handles it."""


@pytest.mark.parametrize("moment", range(8))
def test_cut_off_while_putting_files_into_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    # Four old files are removed, then four new ones come: no moment may leave a mixture that can be read.
    generate(LISTOPS_SHORT, tmp_path, 0, COUNTS)
    names = (*LISTOPS_SHORT.file_names, "settings.json")
    steps = iter(range(100))

    def counted(step: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(self: Path, *arguments: Any, **options: Any) -> Any:
            if self.name in names and next(steps) == moment:
                raise Cut
            return step(self, *arguments, **options)

        return stepping

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", counted(Path.unlink))
        patch.setattr(Path, "replace", counted(Path.replace))
        with pytest.raises(Cut):
            generate(LISTOPS_SHORT, tmp_path, 1, COUNTS, overwrite=True)
    whole = all((tmp_path / "listops_short" / name).is_file() for name in LISTOPS_SHORT.file_names)
    assert whole == (moment in (0, 7))
    assert not generate(LISTOPS_SHORT, tmp_path, 1, COUNTS)  # the next run finishes the move, nothing is made again
    generate(LISTOPS_SHORT, tmp_path / "at once", 1, COUNTS)
    assert contents(tmp_path) == contents(tmp_path / "at once")


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    partial = tmp_path / "listops_short" / ".partial"
    partial.mkdir(parents=True)
    (partial / "basic_train.tsv").write_text("half")
    generate(LISTOPS_SHORT, tmp_path, 0, COUNTS)
    assert not partial.exists()
    assert tuple(map(len, load("listops_short", tmp_path).values())) == (20, 5, 5)
