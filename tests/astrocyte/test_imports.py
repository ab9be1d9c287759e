"""The room's imports go one way."""

import ast
from pathlib import Path

import rmaat.astrocyte

FOLDER = Path(rmaat.astrocyte.__file__).parent
PREFIX = "rmaat.astrocyte."


def imported(module: str) -> set[str]:
    """Return the modules of the room that a module imports when it runs, also within functions."""
    tree = ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
    typing_only = [
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    ]
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node not in typing_only]
    return {name.removeprefix(PREFIX) for name in names if name and name.startswith(PREFIX)}


def test_no_module_imports_itself_through_others():
    modules = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    below = {module: imported(module) for module in modules}
    while below:
        free = [module for module, names in below.items() if not names & below.keys()]
        assert free, f"a circle among {sorted(below)}"
        for module in free:
            del below[module]
