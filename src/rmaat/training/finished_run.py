"""Reading a finished run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rmaat.errors import UserError
from rmaat.models import RmaatForCausalLM, RmaatForSequenceClassification
from rmaat.problems import NEXT_TOKEN
from rmaat.tasks.files import FilesTask
from rmaat.training.config import RunConfig
from rmaat.training.data import RunData
from rmaat.training.quiet import quiet_transformers
from rmaat.training.run_folder import RUN_CONFIG, check_is_run
from rmaat.training.stages import read_stages
from rmaat.training.stored_model import WEIGHTS, check_finished_run, first_mismatch, read_config, read_weights


@dataclass(frozen=True)
class FinishedRun:
    """The data of a run, and its best model in evaluation mode.

    The model is a classifier of whole examples, or a causal model if the answers are ids at many
    positions.
    """

    folder: Path
    source: RunData
    model: RmaatForSequenceClassification | RmaatForCausalLM

    @property
    def config(self) -> RunConfig:
        """The run's settings."""
        return self.source.run

    def check_classifies(self) -> None:
        """Raise `UserError` if the model answers at many positions instead of labelling whole examples."""
        if self.source.answers_at_many_positions:
            folder = self.config.output_dir
            raise UserError(
                f"the model of '{folder}' answers at many positions of {self.config.dataset}, and has no label for a text; "
                f"measure it with `rmaat evaluate`, or in Python call RmaatForCausalLM.from_pretrained('{folder}')"
            )

    def check_held_out_test(self) -> None:
        """Raise `UserError` if the test part is held out of a train file that has changed since the training.

        Other examples would be held out then, which the model may have been trained on.
        """
        task = self.source.task
        if not isinstance(task, FilesTask) or not task.holds_out_test:
            return
        if read_stages(self.folder)[-1].data != self.source.data_digest():
            raise UserError(
                f"train_file {task.options.train_file} or the way to read it has changed since the training, so "
                "the examples that were held out for the test are no longer known; give --test_file"
            )

    def with_test_file(self, test_file: str | None = None, skip_bad_rows: bool | None = None) -> "FinishedRun":
        """Return the run with other settings of its test part, for `evaluate`.

        Args:
            test_file: a file with the columns of the run's own; None leaves the run's.
            skip_bad_rows: skip malformed rows; None leaves the run's choice.

        Raises:
            UserError: if one is given and the run's task is not the user's own files.
        """
        options = {"test_file": test_file, "skip_bad_rows": skip_bad_rows}
        changes: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if not changes:
            return self
        task = self.source.task
        if not isinstance(task, FilesTask):
            raise UserError(
                f"{', '.join(changes)}: only for runs of the task files; this run has the test part of "
                f"{self.config.dataset}"
            )
        task = FilesTask(replace(task.options, **changes), self.source.info.label_names)
        return replace(self, source=replace(self.source, task=task))


@quiet_transformers()
def open_run(folder: Path) -> FinishedRun:
    """Return the finished run in a folder.

    Raises:
        UserError: if a file is missing or damaged, or the model does not belong to the run's task.
    """
    check_is_run(folder)
    check_finished_run(folder)
    run = RunConfig.from_yaml(folder / RUN_CONFIG)
    if run.objective != "labels":
        raise UserError(
            f"'{folder}' is pre-trained and has no classifier; train one with `rmaat train --init_from {folder}`"
        )
    config = read_config(folder)
    answers = config.problem == NEXT_TOKEN
    names = () if answers else tuple(config.id2label[i] for i in range(config.num_labels))
    source = RunData.of_finished_run(run, folder, names)
    if (config.vocab_size, names) != (source.vocab_size, source.info.label_names):
        raise UserError(
            f"the model in '{folder}' has vocab_size {config.vocab_size} and the labels "
            f"{', '.join(names)}; the task '{run.dataset}' needs {source.vocab_size} and "
            f"{', '.join(source.info.label_names)}: it is a checkpoint of another model"
        )
    model_class = RmaatForCausalLM if answers else RmaatForSequenceClassification
    if (mismatch := first_mismatch(read_weights(folder / WEIGHTS), model_class(config))) is not None:
        name, stored, expected = mismatch
        raise UserError(
            f"'{folder / WEIGHTS}' is a checkpoint of another model: "
            f"{name} is {stored}, config.json requires {expected}"
        )
    source = replace(source, label_threshold=config.label_threshold)
    return FinishedRun(folder, source, model_class.from_pretrained(folder).eval())


def open_classifier(folder: Path) -> FinishedRun:
    """Return the finished run in a folder, whose model predicts a label of whole examples.

    Raises:
        UserError: as `open_run`, and if the model answers at many positions instead.
    """
    run = open_run(folder)
    run.check_classifies()
    return run
