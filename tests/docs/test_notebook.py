"""The notebook of examples/ runs from its first cell to its last."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "documents.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_with_one_bar(tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, 4)
    client = nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    warnings = [output["text"] for output in outputs if "warning" in output.get("text", "").lower()]
    assert warnings == []
    # The Trainer's own table would be HTML, and loading weights would show a second bar.
    assert not any("<progress" in output.get("data", {}).get("text/html", "") for output in outputs)
    assert not any("Loading weights" in output.get("text", "") for output in outputs)
    scores = next(output["data"]["text/plain"] for output in outputs if "accuracy" in str(output.get("data", {})))
    accuracy, commonest = (
        float(scores.split(f"'{name}': ")[1].split(",")[0]) for name in ("test_accuracy", "test_majority_accuracy")
    )
    assert accuracy > commonest + 0.3


def test_the_notebook_is_stored_without_outputs():
    nbformat = pytest.importorskip("nbformat")
    cells = nbformat.read(NOTEBOOK, 4).cells
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
