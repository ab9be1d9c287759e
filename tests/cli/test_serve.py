"""Mistakes of `rmaat serve`: one line, and exit status 2."""

import importlib.util
import socket

import pytest

from rmaat.cli.main import main
from rmaat.cli.serve import importlib as importlib_of_serve


@pytest.fixture
def with_gradio(monkeypatch):
    """Gradio counts as installed; the tests end before it is imported."""
    monkeypatch.setattr(importlib_of_serve.util, "find_spec", lambda name: object())


def test_without_gradio_the_line_names_the_extra(monkeypatch, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib_of_serve.util, "find_spec", lambda name, *rest: None if name == "gradio" else find_spec(name, *rest)
    )
    assert main(["serve", "runs/files"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "rmaat: error: serve needs the package gradio; install it with `pip install 'rmaat[serve]'`"
    ]


def test_mistakes(with_gradio, tmp_path, own_text_run, capsys):
    with socket.create_server(("127.0.0.1", 0)) as used:
        for arguments, message in (
            ([], "serve needs its run, folder of a finished run"),
            ([str(tmp_path), "--port", "0"], "is not a run"),
            (
                [str(own_text_run), "--port", str(used.getsockname()[1])],
                "Address already in use; choose another --port",
            ),
            ([str(own_text_run), "--port", "0", "--max_bytes", "0"], "max_bytes must be at least 1"),
            ([str(own_text_run), "--port", "0", "--passages", "-1"], "passages must be at least 0"),
            ([str(own_text_run), "--port", "0", "--host", "256.0.0.1"], "host '256.0.0.1'"),
        ):
            assert main(["serve", *arguments]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert message in line
