"""Files that are whole or not there."""

import json
import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from rmaat.machine.files import (
    make_writable_folder,
    replacing,
    scratch_folder,
    sync_to_disk,
    write_figure,
    write_json,
    write_text,
)


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "metrics.json"
    for text in ("one", "zwei Ä\n"):
        write_text(path, text)
        assert path.read_bytes() == text.encode("utf-8")
    assert list(tmp_path.iterdir()) == [path]


def test_the_umask_sets_who_may_read(tmp_path):
    write_text(tmp_path / "new", "")
    (tmp_path / "usual").touch()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("place", ["inside", "replace"])
def test_an_interrupted_write_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch, place):
    path = tmp_path / "metrics.json"
    write_text(path, "before")

    def stop(*_):
        raise KeyboardInterrupt

    def write():
        with replacing(path) as file:
            file.write(b"after")
            if place == "inside":
                stop()

    if place == "replace":
        monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("sync", [False, True])
def test_the_disk_is_waited_for_only_if_asked(tmp_path, monkeypatch, sync):
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda opened: sizes.append(os.fstat(opened).st_size))
    write_text(tmp_path / "a", "1234", sync=sync)
    assert sizes == ([4] if sync else [])


def test_json_and_figures(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, None]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"b": [1, None]}
    assert text.startswith('{\n  "b"')
    assert text.endswith("}\n")
    write_figure(tmp_path / "a.png", Figure(figsize=(1, 1)), dpi=50)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_scratch_folder_begins_empty_and_goes_unless_renamed(tmp_path):
    path, final = tmp_path / ".partial", tmp_path / "final"
    path.mkdir()
    (path / "left by a killed process").touch()
    with scratch_folder(path) as folder:
        assert list(folder.iterdir()) == []
        (folder / "file").touch()
        sync_to_disk(folder / "file")
        sync_to_disk(folder)
        folder.replace(final)
    with pytest.raises(KeyboardInterrupt), scratch_folder(path):
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.rglob("*")] == ["final", "file"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    make_writable_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        make_writable_folder(tmp_path / "file" / "below")
