"""Bars: counts on a terminal, nothing anywhere else, and nothing left behind."""

import io
from pathlib import Path

import pytest

from rmaat.cli.main import main
from rmaat.cli.progress import bytes_bar, count_bar, named_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return terminal


def test_a_terminal_sees_what_is_done_and_of_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    with count_bar("building task", 5) as progress:
        progress(1)
        progress(2)
    with count_bar("reading task", None) as progress:
        progress(7)
    with bytes_bar("fetching it", 4_000) as progress:
        progress(400)
        progress(600)
    shown = terminal.getvalue()
    for words in ("building task", "3/5", "reading task", "7/?", "fetching it", "1.0/4.0 kB"):
        assert words in shown


def test_data_shows_what_it_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = on_a_terminal(monkeypatch)
    monkeypatch.setenv("RMAAT_CACHE", str(tmp_path / "cache"))
    options = ["--train_file", str(tmp_path / "a.jsonl"), "--test_file", str(tmp_path / "b.jsonl")]
    for i, name in enumerate("ab"):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(f'{{"text": "{name} {j}", "label": {j % 2}}}\n' for j in range(20 + i))
        )
    assert main(["data", "files", "--data_dir", str(tmp_path), "--show", "1", *options]) == 0
    shown = terminal.getvalue()
    assert "reading files" in shown
    assert "building files" in shown
    assert "41/41" in shown
    assert "building" not in capsys.readouterr().out
    terminal.truncate(0)
    assert main(["data", "files", "--data_dir", str(tmp_path), "--show", "1", *options]) == 0
    assert "building" not in terminal.getvalue()  # it is there already


def test_a_file_or_pipe_sees_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with count_bar("building task", 5) as progress:
        progress(1)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_elsewhere_named_pieces_have_a_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter((0.0, 1.25, 10.0, 10.5))
    monkeypatch.setattr("rmaat.cli.progress.time.perf_counter", lambda: next(seconds))
    with named_bar(2) as begin:
        begin("gradients")
        assert capsys.readouterr().err == "gradients ..."
        begin("steps")
    captured = capsys.readouterr()
    assert captured.err == " 1.2 s\nsteps ... 0.5 s\n"
    assert captured.out == ""


def test_a_failure_begins_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with named_bar(1) as begin:
            begin("steps")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert capsys.readouterr().err == "steps ...\n"


def test_a_terminal_sees_the_piece_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    with named_bar(3) as begin:
        begin("gradients")
        begin("steps")
    shown = terminal.getvalue()
    assert "steps" in shown
    assert "1/3" in shown
    assert " s\n" not in shown
