"""The commit beside a figure is that of this package's sources."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rmaat
from rmaat.machine.provenance import provenance

ASK = "import rmaat.machine.provenance as p; print(p.__file__); print(p._commit())"


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", *identity, "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commit_of(folder: Path) -> str:
    """Return the commit that a copy of the package in a folder reports."""
    environment = {key: value for key, value in os.environ.items() if key != "RMAAT_COMMIT"}
    environment["PYTHONPATH"] = str(folder)
    command = [sys.executable, "-c", ASK]
    output = subprocess.check_output(command, text=True, env=environment, cwd=folder)
    file, commit = output.splitlines()
    assert Path(file).is_relative_to(folder)
    return commit


@pytest.fixture
def copy(tmp_path) -> Path:
    """The folder of an untracked copy of the package, within a repository of one commit."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    folder = tmp_path / "lib" / "site-packages"
    source = Path(rmaat.__file__).parent
    for name in ("__init__.py", "auto_classes.py", "machine"):
        target = folder / "rmaat" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source / name, target)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").touch()
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return folder


def test_a_repository_that_merely_encloses_the_package_says_nothing_of_it(copy):
    assert commit_of(copy) == f"version {rmaat.__version__}"


def test_a_repository_that_tracks_the_package_gives_its_commit(copy, tmp_path):
    git(copy, "add", "rmaat/__init__.py", "rmaat/machine/*.py")
    git(tmp_path, "commit", "--quiet", "-m", "second")
    commit = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert commit_of(copy) == commit
    (copy / "rmaat" / "__init__.py").open("a").write("\n")
    assert commit_of(copy) == f"{commit}-dirty"


def test_without_a_repository_it_is_the_version(copy, tmp_path):
    shutil.rmtree(tmp_path / ".git")
    assert commit_of(copy) == f"version {rmaat.__version__}"


def test_the_environment_gives_the_commit_of_a_copy_without_git(monkeypatch):
    monkeypatch.setenv("RMAAT_COMMIT", "0123456789ab")
    assert provenance()["commit"] == "0123456789ab"
    monkeypatch.setenv("RMAAT_COMMIT", "")
    assert provenance()["commit"] not in ("", "0123456789ab")


def test_paths_below_the_working_directory_are_relative_in_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/bin/rmaat", "--output", str(tmp_path / "a b"), "--data_dir", "/elsewhere"])
    assert provenance()["command"] == "rmaat --output 'a b' --data_dir /elsewhere"
