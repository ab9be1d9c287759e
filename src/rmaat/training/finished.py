"""Using a finished run: its config, its model, its task."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from rmaat.errors import UserError
from rmaat.models import RmaatConfig, RmaatForSequenceClassification
from rmaat.tasks import TASKS, Task
from rmaat.tasks.collate import Collator
from rmaat.training.config import RunConfig
from rmaat.training.folder import RUN_CONFIG


@dataclass(frozen=True)
class FinishedRun:
    """A run's config, its task, and its best model in evaluation mode."""

    config: RunConfig
    task: Task
    model: RmaatForSequenceClassification


def open_run(folder: Path) -> FinishedRun:
    """Read a run's folder.

    Raises:
        UserError: where a file is missing or damaged, or the model is of another kind or does not fit the run's task.
    """
    for name in (RUN_CONFIG, "config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UserError(f"'{folder}' is not a finished run: it has no {name}; give the output_dir of `rmaat train`")
    run = RunConfig.from_yaml(folder / RUN_CONFIG)
    task = TASKS[run.dataset]
    try:
        stored = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise UserError(f"'{folder / 'config.json'}' is not JSON: {error}") from error
    kind = stored.get("model_type") if isinstance(stored, dict) else None
    if kind != RmaatConfig.model_type:
        raise UserError(f"'{folder}' holds a model of type '{kind}', not '{RmaatConfig.model_type}'")
    config = RmaatConfig.from_pretrained(folder)
    found = (config.vocab_size, config.num_labels)
    if found != (task.info.vocab_size, len(task.info.label_names)):
        raise UserError(
            f"the model in '{folder}' has vocab_size {found[0]} and {found[1]} labels, the task '{run.dataset}' needs "
            f"{task.info.vocab_size} and {len(task.info.label_names)}: it is a checkpoint of another model"
        )
    _check_weights(folder / "model.safetensors", RmaatForSequenceClassification(config))
    return FinishedRun(run, task, RmaatForSequenceClassification.from_pretrained(folder).eval())


def _check_weights(path: Path, model: RmaatForSequenceClassification) -> None:
    """Raise `UserError` unless the file holds exactly the model's tensors, in their shapes."""
    try:
        with safe_open(path, "pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"'{path}' is damaged or not a safetensors file: {error}") from error
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise UserError(
                f"'{path}' is a checkpoint of another model: {name} is {found.get(name)}, config.json asks for "
                f"{wanted.get(name)}"
            )


@dataclass(frozen=True)
class Prediction:
    """A text's most probable label and the probabilities of all, (num_labels,) float64."""

    label: str
    probabilities: tuple[float, ...]

    @property
    def probability(self) -> float:
        """That of the label."""
        return max(self.probabilities)


@torch.no_grad()
def predict(run: FinishedRun, texts: Sequence[str]) -> Iterator[Prediction]:
    """Label texts one by one, each cut to the run's max_seq_len as in training.

    Raises:
        UserError: for a text that is empty or that the task cannot encode.
    """
    collate = Collator(run.config.segment_length)
    names = [run.model.config.id2label[i] for i in range(run.model.config.num_labels)]
    for text in texts:
        ids = run.task.encode(text)[: run.config.max_seq_len]
        logits = run.model(**collate([{"input_ids": ids}])).logits[0]
        probabilities = logits.double().softmax(0).numpy()
        yield Prediction(names[int(np.argmax(probabilities))], tuple(probabilities.tolist()))
