"""Using a finished run: its config, its model, its task."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rmaat.errors import UserError
from rmaat.models import RmaatForSequenceClassification
from rmaat.training.config import RunConfig
from rmaat.training.data import RunData
from rmaat.training.folder import RUN_CONFIG
from rmaat.training.weights import CONFIG, WEIGHTS, misfit, read_config, read_weights


@dataclass(frozen=True)
class FinishedRun:
    """A run's data and its best model in evaluation mode."""

    source: RunData
    model: RmaatForSequenceClassification

    @property
    def config(self) -> RunConfig:
        """The run's settings."""
        return self.source.run


def open_run(folder: Path) -> FinishedRun:
    """Read a run's folder.

    Raises:
        UserError: where a file is missing or damaged, or the model is of another kind or does not fit the run's task.
    """
    for name in (RUN_CONFIG, CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"'{folder}' is not a finished run: it has no {name}; give the output_dir of `rmaat train`")
    run = RunConfig.from_yaml(folder / RUN_CONFIG)
    config = read_config(folder)
    names = tuple(config.id2label[i] for i in range(config.num_labels))
    source = RunData.of_finished(run, folder, names)
    if (config.vocab_size, names) != (source.vocab_size, source.info.label_names):
        raise UserError(
            f"the model in '{folder}' has vocab_size {config.vocab_size} and the labels {', '.join(names)}; the task "
            f"'{run.dataset}' needs {source.vocab_size} and {', '.join(source.info.label_names)}: it is a checkpoint of "
            "another model"
        )
    if (found := misfit(read_weights(folder / WEIGHTS), RmaatForSequenceClassification(config))) is not None:
        name, there, asked = found
        raise UserError(
            f"'{folder / WEIGHTS}' is a checkpoint of another model: {name} is {there}, config.json asks for {asked}"
        )
    return FinishedRun(source, RmaatForSequenceClassification.from_pretrained(folder).eval())


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
def predict(run: FinishedRun, texts: Sequence[str]) -> Prediction:
    """Label one example: a text or, where the run's task is of pairs, two; each cut as in training. Runs where the model is.

    Raises:
        UserError: for a text that is empty or that the task cannot encode, or another number of texts.
    """
    columns = run.source.info.columns
    if len(texts) != len(columns):
        raise UserError(f"an example of {run.config.dataset} is {len(columns)} text(s), not {len(texts)}")
    example = {
        column: run.source.task.encode(text)[: run.source.sequence_limit]
        for column, text in zip(columns, texts, strict=True)
    }
    batch = {name: x.to(run.model.device) for name, x in run.source.collator()([example]).items()}
    logits = run.model(**batch).logits[0].cpu()
    probabilities = logits.double().softmax(0).numpy()
    return Prediction(run.source.info.label_names[int(np.argmax(probabilities))], tuple(probabilities.tolist()))
