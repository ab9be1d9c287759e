"""Fixtures for the tests of tasks."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads or writes the user's cache or data folder."""
    monkeypatch.delenv("RMAAT_CACHE", raising=False)
    monkeypatch.delenv("RMAAT_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
