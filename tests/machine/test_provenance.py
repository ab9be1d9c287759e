"""The commit beside a figure."""

from rmaat.machine.provenance import provenance


def test_the_environment_gives_the_commit_of_a_copy_without_git(monkeypatch):
    monkeypatch.setenv("RMAAT_COMMIT", "0123456789ab")
    assert provenance()["commit"] == "0123456789ab"
    monkeypatch.setenv("RMAAT_COMMIT", "")
    assert provenance()["commit"] not in ("", "0123456789ab")
