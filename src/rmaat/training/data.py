"""A run's data: its task, what its batches look like, and what to say of it before training."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.models.size import match_parameters
from rmaat.presets import MODELS
from rmaat.tasks import Task, TaskInfo, data_folder, load, task_of
from rmaat.tasks.arrow import read_part, write_part
from rmaat.tasks.base import SPLITS, GeneratedTask, ProgressBar, no_bar
from rmaat.tasks.collate import Collator, lengths
from rmaat.tasks.files import FilesTask
from rmaat.tasks.generate import made_from
from rmaat.tasks.options import FilesOptions, TaskOptions
from rmaat.tasks.reader import TokenReader
from rmaat.tasks.splits import digest
from rmaat.tasks.statistics import PartStatistics, dataset_statistics
from rmaat.training.config import RunConfig
from rmaat.training.folder import TOKENIZER


@dataclass(frozen=True)
class RunData:
    """A run's task and how its examples become batches; `info` is the task's, known also without the user's own files."""

    run: RunConfig
    task: Task
    info: TaskInfo

    @classmethod
    def of(cls, run: RunConfig) -> "RunData":
        """For training: reads the user's own files for their labels where the task is made of them.

        Raises:
            UserError: where the run's settings do not fit its task.
        """
        task = task_of(run.dataset, TaskOptions.of(run))
        return cls(run, task, task.info).checked()

    @classmethod
    def of_finished(cls, run: RunConfig, folder: Path, label_names: tuple[str, ...]) -> "RunData":
        """For using the model in a run's folder: the user's own files and tokenizer may have changed or be gone.

        So labels are the model's, and the tokenizer is the one kept with it.

        Raises:
            UserError: where that tokenizer is missing or damaged.
        """
        if run.dataset != "files":
            return cls.of(run)
        options = FilesOptions.of(run)
        if options.tokenizer is not None:
            options = replace(options, tokenizer=str(_kept_tokenizer(folder)))
        task = FilesTask(options, label_names)
        return cls(run, task, task.info).checked()

    def checked(self) -> "RunData":
        """Itself; raises `UserError` where the run's settings do not fit the task."""
        run, info = self.run, self.info
        if run.input_type == "values" and info.value_mean is None:
            raise UserError(
                f"input_type 'values' needs levels, such as an image's; the ids of {run.dataset} are symbols"
            )
        if run.input_type == "values" and info.image_shape is not None:
            given = min(self.sequence_limit, math.prod(info.image_shape))
            if given % run.patch_size:
                raise UserError(
                    f"patch_size {run.patch_size} does not divide the {given} values of an example of {run.dataset}; rows are of "
                    f"{info.image_shape[1]}"
                )
        if run.two_towers and not info.pair:
            raise UserError(f"two_towers needs pairs; an example of {run.dataset} is one sequence")
        if info.segment_tokens is not None:
            self._check_segments(info.segment_tokens * info.segments_read_together)
        return self

    def _check_segments(self, segment_tokens: int) -> None:
        """Raise `UserError` if the model's segments are not the task's, or if the question would be cut off."""
        run, needed = self.run, self.info.max_seq_len
        if run.max_seq_len < needed:
            raise UserError(
                f"max_seq_len {run.max_seq_len} cuts the question off: {run.dataset} has up to {needed // segment_tokens} "
                f"segments of {segment_tokens} tokens; set max_seq_len: {needed}"
                + (f" and num_segments: {needed // segment_tokens}" if run.num_segments > 1 else "")
            )
        if run.num_segments > 1 and run.segment_span != segment_tokens:
            length = needed if run.max_seq_len % segment_tokens else run.max_seq_len
            raise UserError(
                f"the segments of {run.dataset} have {segment_tokens} tokens, those of the model {run.segment_span}; set "
                f"max_seq_len: {length} and num_segments: {length // segment_tokens}"
            )

    def keep_tokenizer(self, folder: Path) -> None:
        """Leave the tokenizer, where there is one, in the run's folder: the name it was given by may come to mean another."""
        if isinstance(self.task, FilesTask):
            self.task.save_tokenizer(folder / TOKENIZER)

    def check_tokenizer(self, folder: Path) -> None:
        """Raise `UserError` unless the tokenizer, where there is one, is the one that was kept in the run's folder."""
        if not isinstance(self.task, FilesTask) or self.run.tokenizer is None:
            return
        kept = _kept_tokenizer(folder)
        if FilesTask(FilesOptions(tokenizer=str(kept))).tokenizer_checksum() != self.task.tokenizer_checksum():
            raise UserError(f"tokenizer '{self.run.tokenizer}' is not the one of the run, which is kept in '{kept}'")

    def sized(self) -> "RunData":
        """Itself with the width of the feed-forward part that the run's match_parameters asks for.

        Raises:
            UserError: where no width comes near enough.
        """
        run = self.run
        if run.match_parameters is None:
            return self
        lighter = MODELS[run.model].lighter if run.model else ()
        return replace(self, run=replace(run, **match_parameters(self.model_settings(), run.match_parameters, lighter)))

    def model_settings(self) -> dict[str, Any]:
        """The settings of the model for the task, for `RmaatConfig`."""
        names = self.info.label_names
        return {
            **self.run.model_settings(),
            "vocab_size": self.vocab_size,
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
        }

    @property
    def vocab_size(self) -> int:
        """Ids the model must know: one more than the task's where the two of a pair are joined by a separator."""
        return self.info.vocab_size + int(self.joined)

    @property
    def joined(self) -> bool:
        """Whether the two sequences of a pair become one, a, separator, b."""
        return self.info.pair and not self.run.two_towers

    @property
    def sequence_limit(self) -> int:
        """The most tokens kept of one sequence: of each of a pair, so that what the model is given fits max_seq_len."""
        room = (self.run.max_seq_len - 1) // 2 if self.joined else self.run.max_seq_len
        # LRA cuts the documents of AAN wherever the model could take more; one's own have no length but the one asked for.
        published = self.info.pair and not isinstance(self.task, FilesTask)
        return min(room, self.info.max_seq_len) if published else room

    def collator(self) -> Collator:
        """What makes a batch of examples."""
        normalise = None
        if self.run.input_type == "values":
            assert self.info.value_mean is not None
            assert self.info.value_std is not None
            normalise = (self.info.value_mean, self.info.value_std)
        return Collator(self.run.segment_span, normalise, self.info.separator if self.joined else None)

    def load(self, bar: ProgressBar = no_bar) -> DatasetDict:
        """Return all parts; see `rmaat.tasks.load`."""
        folder = Path(self.run.data_dir) if self.run.data_dir else None
        return load(self.task, folder, self.run.data_seed, self.sequence_limit, bar)

    def statistics(self, data: DatasetDict) -> dict[str, PartStatistics]:
        """Return the statistics of the parts that `load` returned.

        For the user's own files, a note says how many examples of validation and test equal one of
        train once the model is given them.
        """
        statistics = dataset_statistics(data)
        if isinstance(self.task, FilesTask):
            for part, count in self._equal_inputs(data).items():
                how = "cut" if self.run.tokenizer is None else "cut and tokenised"
                notes = (*statistics[part].notes, f"{count:,} examples equal one of train once they are {how}")
                statistics[part] = replace(statistics[part], notes=notes)
        return statistics

    def _equal_inputs(self, data: DatasetDict) -> dict[str, int]:
        """Return how many examples of validation and test equal one of train, for the parts that have any."""
        # Equal texts were dropped from train when the files were read. The cut and the tokenizer can make
        # different texts equal, which shows only now.
        measured = {part: list(self._comparable(data[part])) for part in SPLITS[1:]}
        elsewhere = set().union(*measured.values())
        trained = {one for one in self._comparable(data["train"]) if one in elsewhere}
        counts = {part: sum(one in trained for one in digests) for part, digests in measured.items()}
        return {part: count for part, count in counts.items() if count}

    def _comparable(self, part: Dataset) -> Iterator[bytes]:
        """Digests of the examples that may equal another of another text: those cut; any where there is a tokenizer."""
        columns = self.info.columns
        chosen = np.full(len(part), self.run.tokenizer is not None)
        for column in columns:
            chosen |= lengths(part, column) == self.sequence_limit
        reader = TokenReader(part)
        for rows in np.array_split(np.flatnonzero(chosen), 1 + len(part) // 1024):
            for example in reader.__getitems__(rows.tolist()):
                yield digest([example[column].tobytes() for column in columns])

    def test_part(self, scratch: Path, bar: ProgressBar = no_bar) -> Dataset:
        """The test part for a finished run; one's own test file is read anew, by the model's labels, into a folder `scratch`.

        Raises:
            UserError: where the data is missing or malformed, or holds a label that the model has not.
        """
        if not isinstance(self.task, FilesTask):
            return self.load(bar)["test"]
        path = scratch / "test.arrow"
        try:
            with bar(f"building {self.info.name}", None) as progress:
                write_part(path, self.info, self.task.test_part(), self.sequence_limit, progress)
        except OSError as error:
            raise UserError(
                f"{scratch}: the test part cannot be written ({error.strerror or error}); set TMPDIR to a folder with room"
            ) from error
        return read_part(path)

    @property
    def generator_seed(self) -> int | None:
        """What the generated files that the run reads were drawn from; None where it reads others, or that is not known."""
        if not isinstance(self.task, GeneratedTask):
            return None
        settings = made_from(self.task, data_folder(self.run.data_dir))
        return settings["seed"] if settings else None

    def lengths(self, part: Dataset) -> NDArray[np.int64]:
        """The tokens that the model is given for each example of a part: of the longer tower, where there are two."""
        found = [lengths(part, column) for column in self.info.columns]
        return np.add.reduce(found) + 1 if self.joined else np.maximum.reduce(found)

    def longest_first(self, part: Dataset) -> TokenReader:
        """The examples by falling length, so that a batch holds like lengths and memory runs out at once or never."""
        return TokenReader(part.select(np.argsort(-self.lengths(part), kind="stable")))


def _kept_tokenizer(folder: Path) -> Path:
    kept = folder / TOKENIZER
    if not kept.is_dir():
        raise UserError(
            f"'{folder}' has no folder '{TOKENIZER}'; put the tokenizer there that the run was trained with"
        )
    return kept


def drawn(part: Dataset, count: int, seed: int) -> Dataset:
    """That many examples of a part, in its order: a function of the seed; all where `count` is 0 or more than there are."""
    if not 0 < count < len(part):
        return part
    return part.select(np.sort(np.random.default_rng(seed).permutation(len(part))[:count]))
