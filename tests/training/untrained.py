"""Finished runs with random weights, and texts for them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rmaat.tasks.files import FilesTask
from rmaat.tasks.options import FilesOptions
from rmaat.training.config import RunConfig
from rmaat.training.data import RunData
from rmaat.training.finished_run import FinishedRun
from rmaat.training.run import build_model

LONG = RunConfig.resolved({"dataset": "files", "model": "rmaat_long", "readout": "running_mean"})


def untrained(plain: RunConfig | None = None, **changes: Any) -> FinishedRun:
    """A run on texts with random weights, of segments of 16 bytes."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    lengths = {"max_seq_len": 64, "num_segments": 4, "per_device_eval_batch_size": 4}
    run = replace(plain or RunConfig(dataset="files"), **{**sizes, **lengths, **changes})
    source = RunData(run, task := FilesTask(FilesOptions.of(run), ("no", "yes")), task.info)
    torch.manual_seed(0)
    model = build_model(source).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(10)  # so that the texts have different probabilities
    return FinishedRun(Path(source.run.output_dir), source, model)


def texts_of_lengths(*lengths: int) -> list[str]:
    generator = np.random.default_rng(0)
    return ["".join(map(chr, generator.integers(97, 123, length))) for length in lengths]
