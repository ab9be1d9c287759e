"""Files that are whole or not there."""

from pathlib import Path

import pytest

from rmaat.training.folder import write_atomically


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "metrics.json"
    for text in ("one", "two"):
        write_atomically(path, text)
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("at", ["chmod", "replace"])
def test_an_interrupted_write_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch, at):
    path = tmp_path / "metrics.json"
    write_atomically(path, "before")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, at, stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
