"""`README.md`, the model card of a run: its use, its data, its results and its command."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from rmaat.errors import printable
from rmaat.problems import MULTI_LABEL, NEXT_TOKEN, REGRESSION
from rmaat.training.config import RunConfig
from rmaat.training.problems import PROBLEMS

MOST_CLASSES = 10
"""Classes of a part that the card lists."""

RESULTS = {
    "test_accuracy": "accuracy on test",
    "test_majority_accuracy": "accuracy of the commonest class on test",
    "test_tfidf_accuracy": "accuracy of TF-IDF with logistic regression on test",
    **{
        f"test_{name}": f"{title} on test"
        for name, title in {**PROBLEMS[MULTI_LABEL].titles, **PROBLEMS[REGRESSION].titles}.items()
        if name != "auc"
    },
    "test_mean_mae": "mean absolute error of the mean of train on test",
    "test_tfidf_mae": "mean absolute error of TF-IDF with ridge regression on test",
    "test_commonest_f1_micro": "micro F1 of the commonest set on test",
    "test_tfidf_f1_micro": "micro F1 of TF-IDF with logistic regression on test",
    "test_loss": "loss on test",
    "eval_accuracy": "accuracy on validation",
    "eval_loss": "loss on validation",
    "steps": "training steps",
    "best_step": "step of this checkpoint",
    "train_tokens": "training tokens",
    "train_seconds": "training seconds",
    "num_parameters": "parameters",
    "peak_memory_bytes": "peak memory in bytes",
    "seed": "seed",
    "data_seed": "data seed",
}
"""Keys of metrics.json that the card lists, with their names there."""

METRICS_OF_THE_HUB = {"accuracy": "accuracy", "f1_micro": "f1", "mae": "mae"}
"""The main metrics, with their names on the Hugging Face Hub."""

PIPELINE = """
```python
import rmaat  # pip install rmaat; registers the model with transformers
from transformers import pipeline

classify = pipeline("text-classification", {folder})
print(classify("a text"{truncation}))
```"""

AUTO_CLASS = """
```python
import rmaat  # pip install rmaat; registers the model with transformers
from transformers import {auto_class}

model = {auto_class}.from_pretrained({folder})
```"""


AUTO_CLASSES = {
    "labels": "AutoModelForSequenceClassification",
    "masked": "AutoModelForMaskedLM",
    "causal": "AutoModelForCausalLM",
}


def model_card(run: RunConfig, metrics: Mapping[str, Any], *, classifies_text: bool, reads_any_length: bool) -> str:
    """Return the model card of a finished run, Markdown with a YAML header for the Hugging Face Hub.

    Args:
        run: the settings of the run.
        metrics: the content of metrics.json.
        classifies_text: whether the pipeline "text-classification" can use the run's folder.
        reads_any_length: whether the model reads texts of any length whole.
    """
    name = printable(run.wandb_run_name or run.output_dir.rstrip("/").rpartition("/")[2])
    header: dict[str, Any] = {"library_name": "transformers", "tags": ["rmaat", "long-context", run.dataset]}
    if classifies_text:
        header["pipeline_tag"] = "text-classification"
    if metric := next((METRICS_OF_THE_HUB[key] for key in METRICS_OF_THE_HUB if f"test_{key}" in metrics), None):
        header["metrics"] = [metric]
    auto_class = AUTO_CLASSES["causal" if metrics.get("problem_type") == NEXT_TOKEN else run.objective]
    # A name without its folder would be one of the hub.
    folder = json.dumps(printable(run.output_dir), ensure_ascii=False)
    truncation = "" if reads_any_length else ", truncation=True"
    use = AUTO_CLASS.format(folder=folder, auto_class=auto_class)
    if classifies_text:
        use = PIPELINE.format(folder=folder, truncation=truncation)
    segments = "1 segment" if run.num_segments == 1 else f"{run.num_segments} segments"
    commit = printable(metrics["commit"])
    code = commit if commit.startswith("version ") else f"commit {commit}"
    results = [(label, _number(metrics[key])) for key, label in RESULTS.items() if metrics.get(key) is not None]
    return "\n".join(
        [
            "---",
            yaml.safe_dump(header, sort_keys=False, allow_unicode=True).rstrip(),
            "---",
            "",
            f"# {name}",
            "",
            f"A Recurrent Memory Augmented Astromorphic Transformer (RMAAT, arXiv 2601.00426) for the task "
            f"`{run.dataset}`. It reads sequences of {run.max_seq_len:,} tokens in {segments}.",
            "",
            "## Use",
            use,
            "",
            "## Data",
            "",
            *_data(metrics["data"]),
            "",
            "## Results",
            "",
            *_table(("", "value"), results),
            "",
            "## Training",
            "",
            "```shell",
            printable(metrics["command"]),
            "```",
            "",
            f"Trained with {code} on {printable(metrics['machine'])}. All settings are in "
            "`run.yaml`, all results in `metrics.json`.",
            "",
        ]
    )


def _data(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table of the parts, and the notes on them."""
    rows, notes = [], []
    for part, statistics in parts.items():
        classes = [f"{_cell(label)}: {count:,}" for label, count in statistics["classes"].items()]
        if (numbers := statistics.get("numbers")) is not None:
            classes = [f"{numbers['least']:.6g} to {numbers['most']:.6g}, mean {numbers['mean']:.6g}"]
        if (answers := statistics.get("answers")) is not None:
            classes = [f"{answers:,} answers"]
        rest = [f"and {len(classes) - MOST_CLASSES} more"] if len(classes) > MOST_CLASSES else []
        lengths = [
            f"mean {of['mean']:,.0f}, longest {of['longest']:,}, {of['cut']:,} cut to {of['max_seq_len']:,}"
            for of in statistics["lengths"].values()
        ]
        cells = (f"{statistics['examples']:,}", ", ".join(classes[:MOST_CLASSES] + rest), "; ".join(lengths))
        rows.append((part, *cells))
        notes += [f"- {part}: {_cell(note)}" for note in statistics["notes"]]
    return [*_table(("part", "examples", "classes", "tokens"), rows), *(["", *notes] if notes else [])]


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (headings, ("---",) * len(headings), *rows)]


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")


def _number(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"
