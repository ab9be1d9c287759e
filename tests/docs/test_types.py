"""The Python of the README and of the models' page is accepted by mypy, as a user would run it."""

import importlib.util
import os
import subprocess
import sys

import pytest
from tests.docs.test_code_blocks import ROOT, blocks

PAGES = {"readme.py": "README.md", "models.py": "docs/reference/models.md"}
"""The names of the checked modules, and the pages of their code."""


@pytest.mark.slow
def test_mypy_accepts_the_python_of_the_pages(tmp_path):
    """The types of transformers are read, so this takes a minute."""
    for name, page in PAGES.items():
        snippets = [block.text for block in blocks(page) if block.language == "python"]
        assert snippets, page
        (tmp_path / name).write_text("\n".join(snippets) + "\n")
    assert importlib.util.find_spec("mypy") is not None
    # Errors inside packages are not shown, as in a user's own project.
    command = [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent", "--ignore-missing-imports"]
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    done = subprocess.run(
        [*command, *PAGES],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
