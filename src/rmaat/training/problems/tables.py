"""The table of a test's classes or labels."""

from collections.abc import Mapping

from rich.table import Table

from rmaat.errors import printable


def class_table(classes: Mapping[str, Mapping[str, float | None]], heading: str) -> Table:
    """Return precision, recall, F1 and number of examples of each class; its AUC if there is one.

    Args:
        classes: `test_classes` of `metrics.json`.
        heading: of the column of names.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column(heading)
    has_auc = any("auc" in scores for scores in classes.values())
    for name in ("precision", "recall", "F1", *(("AUC",) if has_auc else ()), "examples"):
        table.add_column(name, justify="right")
    for name, scores in classes.items():
        shares = [f"{100 * (scores[key] or 0):.2f}%" for key in ("precision", "recall", "f1")]
        area = scores.get("auc")
        areas = ["-" if area is None else f"{area:.4f}"] if has_auc else []
        table.add_row(printable(name), *shares, *areas, f"{scores['support']:,}")
    return table
