"""The choice of max_seq_len and num_segments by the lengths of the user's own documents."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from rmaat.errors import UserError
from rmaat.presets import MODELS
from rmaat.tasks import Task
from rmaat.tasks.files import FilesTask
from rmaat.training.config import RunConfig
from rmaat.training.run_folder import RUN_CONFIG

SHARE_READ_WHOLE = 0.95
"""Share of the documents that are not truncated."""

SEGMENT = 256
"""Most tokens of a segment."""

ROUNDED_TO = 16
"""A segment has a multiple of so many tokens, so that the kernels of matrix products are fast."""

LONGEST = 64 * SEGMENT
"""Largest max_seq_len that is chosen: one step on longer documents would take minutes on a CPU."""

BATCH = 2**16
"""Most tokens of a training batch, so that long documents take many small steps rather than few."""

FEWEST_EXAMPLES = 4
"""Examples of a batch below which BATCH does not lower it."""

DOCUMENTS_MEASURED = 2000


def with_lengths(run: RunConfig, task: Task) -> RunConfig:
    """Return the run with a max_seq_len of 0 replaced, with num_segments and a batch that go with it.

    max_seq_len is the 95th percentile of the lengths of the training documents, at most `LONGEST`,
    and a segment has at most 256 tokens. A model without recurrence keeps its single segment. A run
    that begins with the weights of another has the lengths of that one, because its positions are
    those of its segments.

    Raises:
        UserError: if the task is not `files`.
    """
    if run.max_seq_len > 0:
        return run
    previous = Path(run.output_dir) / RUN_CONFIG
    if run.resume and previous.is_file():
        first = RunConfig.from_yaml(previous)
        batch = first.per_device_train_batch_size
        return replace(
            run, max_seq_len=first.max_seq_len, num_segments=first.num_segments, per_device_train_batch_size=batch
        )
    if run.init_from is not None:
        first = RunConfig.from_yaml(Path(run.init_from) / RUN_CONFIG)
        return _with_batch(replace(run, max_seq_len=first.max_seq_len, num_segments=first.num_segments))
    if not isinstance(task, FilesTask):
        raise UserError(f"max_seq_len 0 needs the lengths of the task files; give {task.info.name} a number")
    tokens = typical_length(run, task)
    fixed = MODELS[run.model].fixed if run.model else {}
    segments = 1 if "num_segments" in fixed else -(-tokens // SEGMENT)
    of_a_segment = -(-tokens // (segments * ROUNDED_TO)) * ROUNDED_TO
    return _with_batch(replace(run, max_seq_len=of_a_segment * segments, num_segments=segments))


def _with_batch(run: RunConfig) -> RunConfig:
    """Return the run with a batch of at most `BATCH` tokens, or `FEWEST_EXAMPLES`."""
    most = max(FEWEST_EXAMPLES, BATCH // run.max_seq_len)
    return replace(run, per_device_train_batch_size=min(run.per_device_train_batch_size, most))


def typical_length(run: RunConfig, task: FilesTask) -> int:
    """Return the length that 95% of the training documents do not exceed, at most `LONGEST`.

    For pairs it is that of the longer one, or of both and a separator if the model reads them as one
    sequence.
    """
    lengths_EC = task.example_lengths(DOCUMENTS_MEASURED)
    length = max(1, int(np.ceil(np.quantile(lengths_EC.max(1), SHARE_READ_WHOLE))))
    if task.info.pair and not run.two_towers:
        length = 2 * length + 1
    return min(length, LONGEST)
