"""`RunData`, the data of a run: its task, its batches, its statistics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from rmaat.errors import UserError
from rmaat.models import RmaatConfig, RmaatForCausalLM, RmaatForMaskedLM, RmaatForSequenceClassification
from rmaat.models.size import match_parameters
from rmaat.presets import MODELS
from rmaat.problems import NEXT_TOKEN, SINGLE_LABEL
from rmaat.tasks import TASKS, Task, TaskInfo, data_folder, load, task_of
from rmaat.tasks.arrow import read_part, write_part
from rmaat.tasks.base import Augmentation, GeneratedTask, ProgressBar, no_bar
from rmaat.tasks.cache import data_digest
from rmaat.tasks.collate import Collator, lengths
from rmaat.tasks.files import FilesTask
from rmaat.tasks.generate import made_from
from rmaat.tasks.options import FilesOptions, TaskOptions
from rmaat.tasks.reader import BeginningsReader, TokenReader
from rmaat.tasks.statistics import PartStatistics, dataset_statistics
from rmaat.tasks.text import BytesTask
from rmaat.tasks.tokenizer import AUTOMATIC, TokenizedTask, byte_tokenizer
from rmaat.training.config import RunConfig
from rmaat.training.equal_inputs import equal_inputs
from rmaat.training.lengths import with_lengths
from rmaat.training.problems import PROBLEMS, MultiLabel, Problem
from rmaat.training.run_folder import RUN_CONFIG, tokenizer_folder

MODEL_CLASSES = {
    "labels": RmaatForSequenceClassification,
    "masked": RmaatForMaskedLM,
    "causal": RmaatForCausalLM,
}
"""The class of the model for each objective, if a label belongs to a whole example."""

PUBLISHED_SHARES = {"expression": 0.1, "text": 0.15, "image": 0.5, "memory": 0.15}
"""Shares of masked positions by the kind of task (arXiv 2310.02980); 'memory' is [C]."""


@dataclass(frozen=True)
class RunData:
    """The task of a run, and the conversion of its examples into batches.

    Attributes:
        run: the settings of the run.
        task: the task.
        info: the description of the task, known even if the user's own files are gone.
        label_threshold: see `RmaatConfig`.
    """

    run: RunConfig
    task: Task
    info: TaskInfo
    label_threshold: float = 0.5

    @classmethod
    def of(cls, run: RunConfig) -> "RunData":
        """Return the data of a run that is to be trained.

        A task of the user's own files reads them here for their labels.

        Raises:
            UserError: if the run's settings do not suit its task.
        """
        run, options = _with_existing_tokenizer(run)
        task = task_of(run.dataset, options)
        return cls(with_lengths(run, task), task, task.info)._checked()

    @classmethod
    def of_finished_run(cls, run: RunConfig, folder: Path, label_names: tuple[str, ...]) -> "RunData":
        """Return the data for the model in a run's folder.

        The user's own files and tokenizer may have changed or be gone. The labels are therefore
        those of the model, and the tokenizer is the one that was saved in the folder.

        Raises:
            UserError: if that tokenizer is missing or damaged.
        """
        if run.dataset != "files":
            return cls.of(run)
        options = FilesOptions.of(run)
        if options.tokenizer is not None:
            options = replace(options, tokenizer=str(tokenizer_folder(folder)))
        task = FilesTask(options, label_names)
        return cls(run, task, task.info)._checked()

    def _checked(self) -> "RunData":
        """Return this object; raise `UserError` if the run's settings do not suit the task."""
        run, info = self.run, self.info
        if self.answers_at_many_positions:
            self._check_answers()
        elif run.objective == "labels" and (
            not self.task.has_labels or len(info.label_names) < (2 if info.problem_type == SINGLE_LABEL else 1)
        ):
            raise UserError(f"{run.dataset} has no labels to learn; use `rmaat pretrain`")
        RmaatConfig(**self.model_settings())
        if run.input_type == "values" and info.value_mean is None:
            raise UserError(
                f"input_type 'values' needs numbers, such as the levels of an image; the ids of "
                f"{run.dataset} are symbols"
            )
        if run.input_type == "values" and info.image_shape is not None:
            values = min(self.sequence_limit, math.prod(info.image_shape))
            if values % run.patch_size:
                raise UserError(
                    f"patch_size {run.patch_size} does not divide the {values} values of an example "
                    f"of {run.dataset}; a row has {info.image_shape[1]}"
                )
        if run.two_towers and not info.pair:
            raise UserError(f"two_towers needs pairs; an example of {run.dataset} is one sequence")
        if info.segment_tokens is not None:
            self._check_segments(info.segment_tokens * info.segments_read_together)
        if run.augmentation:
            self._check_augmentation()
        return self

    def _check_answers(self) -> None:
        """Raise `UserError` if the settings do not suit answers at many positions."""
        run, needed = self.run, self.info.max_seq_len
        run.check_problem(NEXT_TOKEN)
        if not run.causal:
            raise UserError(
                f"{run.dataset} asks for the id that follows a token at many positions, which only a causal model "
                "predicts: set causal: true, or model: rmaat_causal"
            )
        if run.max_seq_len < needed:
            raise UserError(
                f"max_seq_len {run.max_seq_len} truncates questions: an example of {run.dataset} has {needed} tokens; "
                f"set max_seq_len: {needed}"
            )

    def _check_augmentation(self) -> None:
        """Raise `UserError` if the task has no augmentation, or its images are truncated."""
        if self.task.augmentation() is None:
            names = [name for name in TASKS.names() if TASKS[name].augmentation() is not None]
            raise UserError(f"augmentation: {self.run.dataset} has none; the tasks with one are {', '.join(names)}")
        if self.info.image_shape is not None and self.sequence_limit < math.prod(self.info.image_shape):
            raise UserError(
                f"augmentation needs whole images, and max_seq_len {self.sequence_limit} truncates those of "
                f"{self.run.dataset}; set max_seq_len: {self.info.max_seq_len}"
            )

    def _check_segments(self, segment_tokens: int) -> None:
        """Raise `UserError` if the model's segments differ from the task's or lose the question.

        Args:
            segment_tokens: tokens of one segment of the task.
        """
        run, needed = self.run, self.info.max_seq_len
        if run.max_seq_len < needed:
            raise UserError(
                f"max_seq_len {run.max_seq_len} truncates the question: {run.dataset} has up to "
                f"{needed // segment_tokens} segments of {segment_tokens} tokens; "
                f"set max_seq_len: {needed}"
                + (f" and num_segments: {needed // segment_tokens}" if run.num_segments > 1 else "")
            )
        if run.num_segments > 1 and run.tokens_per_segment != segment_tokens:
            length = needed if run.max_seq_len % segment_tokens else run.max_seq_len
            raise UserError(
                f"the segments of {run.dataset} have {segment_tokens} tokens, those of the model "
                f"{run.tokens_per_segment}; set max_seq_len: {length} and "
                f"num_segments: {length // segment_tokens}"
            )

    def save_tokenizer(self, folder: Path) -> None:
        """Save the tokenizer of a task of texts in the run's folder; one of bytes has a tokenizer too.

        The name or path of the user's tokenizer may later stand for another one.
        """
        separator = self.info.separator if self.joins_pairs else None
        max_length = VERY_LARGE_INTEGER if self.reads_any_length else self.run.max_seq_len
        if isinstance(self.task, TokenizedTask):
            self.task.hub_tokenizer(max_length, separator).save_pretrained(folder)
        elif isinstance(self.task, BytesTask):
            byte_tokenizer(max_length, separator).save_pretrained(folder)

    @property
    def reads_any_length(self) -> bool:
        """Whether the run's model can read texts longer than those of training.

        A model of one segment has not learned to carry memory, and the schedule 'learned' has no
        factors for further segments. Images have one length.
        """
        return self.run.num_segments > 1 and self.run.schedule != "learned" and self.info.kind != "image"

    @property
    def classifies_text(self) -> bool:
        """Whether the pipeline "text-classification" of transformers can use the run's folder.

        A pair in one sequence needs a separator between its texts, which only bytes have.
        """
        run = self.run
        if run.objective != "labels" or run.input_type != "tokens" or run.two_towers:
            return False
        own_tokenizer = isinstance(self.task, TokenizedTask) and run.tokenizer is not None
        return isinstance(self.task, (TokenizedTask, BytesTask)) and not (own_tokenizer and self.joins_pairs)

    def check_tokenizer(self, folder: Path) -> None:
        """Raise `UserError` if the tokenizer differs from the one saved in the run's folder."""
        if not isinstance(self.task, TokenizedTask) or self.run.tokenizer is None:
            return
        saved = tokenizer_folder(folder)
        if FilesTask(FilesOptions(tokenizer=str(saved))).tokenizer_checksum() != self.task.tokenizer_checksum():
            raise UserError(f"tokenizer '{self.run.tokenizer}' differs from the one that the run saved in '{saved}'")

    def with_matched_parameters(self) -> "RunData":
        """Return this object with the intermediate_size that match_parameters requires.

        Raises:
            UserError: if no width comes near enough to that number of parameters.
        """
        run = self.run
        if run.match_parameters is None:
            return self
        lighter = MODELS[run.model].lighter if run.model else ()
        # The masked head does not count, because predictions do without it. Neither does the table of
        # n-grams, of which a text reads few rows.
        settings = {**self.model_settings(), "masked_head": False, "ngram_size": None}
        return replace(self, run=replace(run, **match_parameters(settings, run.match_parameters, lighter)))

    @property
    def answers_at_many_positions(self) -> bool:
        """Whether the run learns the ids that follow some tokens, with a causal model."""
        return self.run.objective == "labels" and self.info.problem_type == NEXT_TOKEN

    @property
    def model_class(
        self,
    ) -> type[RmaatForSequenceClassification] | type[RmaatForMaskedLM] | type[RmaatForCausalLM]:
        """The class of the run's model."""
        return RmaatForCausalLM if self.answers_at_many_positions else MODEL_CLASSES[self.run.objective]

    def model_settings(self) -> dict[str, Any]:
        """Return the settings of the model for the task, for `RmaatConfig`."""
        names = self.info.label_names
        settings = {**self.run.model_settings(), "vocab_size": self.vocab_size}
        settings["masked_head"] = self.run.has_masked_loss
        if self.run.objective != "labels":
            return settings
        if self.answers_at_many_positions:
            return {**settings, "problem_type": NEXT_TOKEN}
        return {
            **settings,
            # Without it transformers would take the type from the labels of the first batch.
            "problem_type": self.info.problem_type,
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
        }

    @property
    def problem(self) -> Problem:
        """What the task's labels mean for metrics, predictions and figures."""
        problem = PROBLEMS[self.info.problem_type]
        return replace(problem, threshold=self.label_threshold) if isinstance(problem, MultiLabel) else problem

    @property
    def mask_share(self) -> float:
        """The share of masked positions, if there is a masked loss."""
        return PUBLISHED_SHARES[self.info.kind] if self.run.mask_share is None else self.run.mask_share

    @property
    def vocab_size(self) -> int:
        """The number of ids in the model's vocabulary.

        Pairs that are joined need one id more than the task has, for the separator.
        """
        return self.info.vocab_size + int(self.joins_pairs)

    @property
    def joins_pairs(self) -> bool:
        """True if the two sequences a, b of a pair become one: a, separator, b."""
        return self.info.pair and not self.run.two_towers

    @property
    def sequence_limit(self) -> int:
        """The length at which a sequence is truncated, in tokens.

        Each sequence of a pair is truncated by itself, so that the model's input fits max_seq_len.
        """
        limit = (self.run.max_seq_len - 1) // 2 if self.joins_pairs else self.run.max_seq_len
        # The Long Range Arena truncates the documents of AAN even if the model could read more. The
        # user's own documents have no such limit.
        published = self.info.pair and not isinstance(self.task, FilesTask)
        return min(limit, self.info.max_seq_len) if published else limit

    def collator(self) -> Collator:
        """Return the function that makes a batch of examples."""
        normalise = None
        if self.run.input_type == "values":
            assert self.info.value_mean is not None
            assert self.info.value_std is not None
            normalise = (self.info.value_mean, self.info.value_std)
        return Collator(self.run.tokens_per_segment, normalise, self.info.separator if self.joins_pairs else None)

    def augmentation(self) -> Augmentation | None:
        """Return the random change of training examples, or None if the run has none."""
        return self.task.augmentation() if self.run.augmentation else None

    def load(self, bar: ProgressBar = no_bar) -> DatasetDict:
        """Return all parts; see `rmaat.tasks.load`."""
        folder = Path(self.run.data_dir) if self.run.data_dir else None
        return load(self.task, folder, self.run.data_seed, self.sequence_limit, bar)

    def data_digest(self) -> str:
        """Return a digest of everything on which the data set of `load` depends."""
        return data_digest(self.task, data_folder(self.run.data_dir), self.run.data_seed, self.sequence_limit)

    def statistics(self, data: DatasetDict) -> dict[str, PartStatistics]:
        """Return the statistics of the parts that `load` returned.

        For the user's own files, a note gives the number of validation and test examples that equal
        a training example after truncation and tokenisation.
        """
        statistics = dataset_statistics(data)
        if isinstance(self.task, FilesTask):
            tokenised = self.run.tokenizer is not None
            for part, count in equal_inputs(data, self.info.columns, self.sequence_limit, tokenised).items():
                how = "truncated and tokenised" if tokenised else "truncated"
                notes = (*statistics[part].notes, f"{count:,} examples equal one of train once they are {how}")
                statistics[part] = replace(statistics[part], notes=notes)
        return statistics

    def test_part(self, scratch: Path, bar: ProgressBar = no_bar) -> Dataset:
        """Return the test part for a finished run.

        The user's own test file is read again, with the labels of the model. Without such a file the
        examples are those that training held out.

        Args:
            scratch: a folder for the examples of the user's own test file.
            bar: shown while the part is built.

        Raises:
            UserError: if the data is missing or malformed, or holds a label unknown to the model.
        """
        if not isinstance(self.task, FilesTask) or self.task.holds_out_test:
            return self.load(bar)["test"]
        path = scratch / "test.arrow"
        try:
            with bar(f"building {self.info.name}", None) as progress:
                write_part(path, self.info, self.task.test_part(), self.sequence_limit, progress)
        except OSError as error:
            raise UserError(
                f"{scratch}: the test part cannot be written ({error.strerror or error}); "
                "set TMPDIR to a folder with more free space"
            ) from error
        return read_part(path)

    @property
    def generator_seed(self) -> int | None:
        """The seed of the generated files that the run reads; None for other files or unknown."""
        if not isinstance(self.task, GeneratedTask):
            return None
        settings = made_from(self.task, data_folder(self.run.data_dir))
        return settings["seed"] if settings else None

    def lengths(self, part: Dataset) -> NDArray[np.int64]:
        """Return the length of the model's input for each example of a part, (E,) int64.

        With two towers it is the length of the longer input.
        """
        return self.input_lengths([lengths(part, column) for column in self.info.columns])

    def input_lengths(self, by_column: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Return what `lengths` returns, from the lengths (E,) of each token column."""
        return np.add.reduce(by_column) + 1 if self.joins_pairs else np.maximum.reduce(by_column)

    def for_evaluation(self, part: Dataset, count: int = 0) -> TokenReader:
        """Return the examples of a part in the order of an evaluation.

        With `carry_memory` they are the first ones, in their order: each sequence needs the memory of the
        one before. Else they are drawn, because the first ones of a file may all be of one class, and come
        by falling length.

        Args:
            part: the part.
            count: the number of examples; 0 means all.
        """
        if self.run.carry_memory:
            return TokenReader(part.select(range(min(count or len(part), len(part)))))
        return self.longest_first(draw_examples(part, count, self.run.data_seed))

    def longest_first(self, part: Dataset) -> TokenReader:
        """Return the examples of a part by falling length.

        A batch then holds similar lengths, and a lack of memory shows in the first batch.
        """
        return TokenReader(part.select(np.argsort(-self.lengths(part), kind="stable")))

    def beginnings(self, part: Dataset, shares_E: NDArray[np.float64]) -> tuple[TokenReader, NDArray[np.int64]]:
        """Return the beginnings of the examples by falling length, and their lengths as `lengths` gives them.

        Args:
            part: E examples.
            shares_E: the share of each example that is read, at least one token, above 0 and at most 1.
        """
        by_column = {
            name: np.ceil(shares_E * lengths(part, name)).astype(np.int64).clip(1) for name in self.info.columns
        }
        lengths_E = self.input_lengths(list(by_column.values()))
        order = np.argsort(-lengths_E, kind="stable")
        sorted_by_column = {name: column[order] for name, column in by_column.items()}
        return BeginningsReader(part.select(order), sorted_by_column), lengths_E[order]


def _with_existing_tokenizer(run: RunConfig) -> tuple[RunConfig, TaskOptions]:
    """Return the run and the options of its task, with an existing tokenizer in place of an automatic one.

    A resumed run has its own. A run that begins with the weights of another has that one's, or bytes
    if it read bytes.
    """
    options = TaskOptions.of(run)
    if run.tokenizer == AUTOMATIC:
        output_dir = Path(run.output_dir)
        resumed = run.resume and (output_dir / RUN_CONFIG).is_file()
        if resumed or run.init_from is not None:
            first = output_dir if resumed else Path(str(run.init_from))
            # A run on bytes has a tokenizer of bytes, which the task does without.
            reads_bytes = RunConfig.from_yaml(first / RUN_CONFIG).tokenizer is None
            existing = None if reads_bytes else str(tokenizer_folder(first))
            options = replace(options, tokenizer=existing)
            run = replace(run, tokenizer=AUTOMATIC if resumed and existing else existing)
    return run, options


def draw_examples(part: Dataset, count: int, seed: int) -> Dataset:
    """Return `count` random examples of a part, in the order of the part.

    The choice depends on the seed only. The whole part is returned if `count` is 0 or is not below
    the number of examples.
    """
    if not 0 < count < len(part):
        return part
    return part.select(np.sort(np.random.default_rng(seed).permutation(len(part))[:count]))
