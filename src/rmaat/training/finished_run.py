"""Reading a finished run, and predicting with its model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rmaat.errors import UserError
from rmaat.models import RmaatForSequenceClassification
from rmaat.training.config import RunConfig
from rmaat.training.data import RunData
from rmaat.training.run_folder import RUN_CONFIG
from rmaat.training.stored_model import WEIGHTS, check_finished_run, first_mismatch, read_config, read_weights


@dataclass(frozen=True)
class FinishedRun:
    """The data of a run, and its best model in evaluation mode."""

    source: RunData
    model: RmaatForSequenceClassification

    @property
    def config(self) -> RunConfig:
        """The run's settings."""
        return self.source.run


def open_run(folder: Path) -> FinishedRun:
    """Return the finished run in a folder.

    Raises:
        UserError: if a file is missing or damaged, or the model does not belong to the run's task.
    """
    if not (folder / RUN_CONFIG).is_file():
        raise UserError(f"'{folder}' is not a run: it has no {RUN_CONFIG}; give the output_dir of `rmaat train`")
    check_finished_run(folder)
    run = RunConfig.from_yaml(folder / RUN_CONFIG)
    if run.objective == "masked":
        raise UserError(
            f"'{folder}' is pre-trained and has no classifier; train one with `rmaat train --init_from {folder}`"
        )
    config = read_config(folder)
    names = tuple(config.id2label[i] for i in range(config.num_labels))
    source = RunData.of_finished_run(run, folder, names)
    if (config.vocab_size, names) != (source.vocab_size, source.info.label_names):
        raise UserError(
            f"the model in '{folder}' has vocab_size {config.vocab_size} and the labels "
            f"{', '.join(names)}; the task '{run.dataset}' needs {source.vocab_size} and "
            f"{', '.join(source.info.label_names)}: it is a checkpoint of another model"
        )
    if (mismatch := first_mismatch(read_weights(folder / WEIGHTS), RmaatForSequenceClassification(config))) is not None:
        name, stored, expected = mismatch
        raise UserError(
            f"'{folder / WEIGHTS}' is a checkpoint of another model: "
            f"{name} is {stored}, config.json requires {expected}"
        )
    return FinishedRun(source, RmaatForSequenceClassification.from_pretrained(folder).eval())


@dataclass(frozen=True)
class Prediction:
    """The most probable label of a text, and the probabilities of all labels."""

    label: str
    probabilities: tuple[float, ...]

    @property
    def probability(self) -> float:
        """The probability of the label."""
        return max(self.probabilities)


@torch.no_grad()
def predict(run: FinishedRun, texts: Sequence[str]) -> Prediction:
    """Return the prediction for one example, computed on the model's device.

    Args:
        run: the finished run.
        texts: one text, or two if the run's task has pairs. Each is truncated as in training.

    Raises:
        UserError: for a text that is empty or that the task cannot encode, or for a wrong number
            of texts.
    """
    columns = run.source.info.columns
    if len(texts) != len(columns):
        raise UserError(f"an example of {run.config.dataset} has {len(columns)} text(s), not {len(texts)}")
    example = {
        column: run.source.task.encode(text)[: run.source.sequence_limit]
        for column, text in zip(columns, texts, strict=True)
    }
    batch = {name: x.to(run.model.device) for name, x in run.source.collator()([example]).items()}
    logits = run.model(**batch).logits[0].cpu()
    if not logits.isfinite().all():
        raise UserError(
            "the model's logits for this text are not finite, so it has no prediction; its training diverged"
        )
    probabilities = logits.double().softmax(0).numpy()
    return Prediction(run.source.info.label_names[int(np.argmax(probabilities))], tuple(probabilities.tolist()))
