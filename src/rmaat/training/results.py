"""The results of a run: its tests, `metrics.json` and `curves.png`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers.trainer_utils import EvalPrediction

from rmaat.machine.files import write_json
from rmaat.machine.provenance import provenance
from rmaat.tasks.reader import TokenReader
from rmaat.tasks.statistics import PartStatistics
from rmaat.training import checkpoints, run_folder
from rmaat.training.curves import draw_curves
from rmaat.training.data import RunData, draw_examples
from rmaat.training.stages import read_stages, stage_changes
from rmaat.training.trainer import SegmentTrainer


@dataclass(frozen=True)
class Result:
    """The result of a run: the content of metrics.json, and the run's folder."""

    metrics: dict[str, Any]
    output_dir: Path


def finish(
    source: RunData, trainer: SegmentTrainer, data: DatasetDict, statistics: dict[str, PartStatistics]
) -> Result:
    """Store the best model of a trained run, test it, and write the results.

    Without labels there is no test: the model is judged by its loss on the validation part.
    """
    run, output_dir = source.run, Path(source.run.output_dir)
    history = list(trainer.state.log_history)
    trainer.save_model(str(output_dir))

    labelled, stages = run.objective == "labels", read_stages(output_dir)
    metrics = {
        **(test_results(source, trainer, data["test"]) if labelled else {}),
        **measure(trainer, source.longest_first(data["validation"]), "eval"),
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "train_tokens": trainer.totals["tokens"],
        "train_seconds": round(trainer.totals["seconds"], 1),
        "train_tokens_per_second": round(trainer.totals["tokens"] / max(trainer.totals["seconds"], 1e-9)),
        "training_memory_bytes": trainer.totals["memory"],
        "peak_memory_bytes": trainer.memory.process_peak,
        "num_parameters": sum(p.numel() for p in trainer.model.parameters()),
        "curriculum_levels": trainer.levels if run.curriculum else None,
        "objective": run.objective,
        "init_from": run.init_from,
        "init_from_training": stages[0].init_from_training,
        "seed": run.seed,
        "data_seed": run.data_seed,
        "generator_seed": source.generator_seed,
        "dataset": run.dataset,
        "input_type": run.input_type,
        "patch_size": run.patch_size,
        "model": run.model,
        **provenance(),
        "stages": stage_changes(stages),
        "data": {part: asdict(part_statistics) for part, part_statistics in statistics.items()},
    }
    if trainer.is_world_process_zero():
        metrics["files"] = checkpoints.file_records(output_dir, run_folder.recorded_files(output_dir))
        write_json(output_dir / run_folder.METRICS, metrics)
        patches = f" patches of {run.patch_size}" if run.patch_size > 1 else ""
        title = (
            f"{run.dataset}, {run.attention_type}, {run.num_segments} segments of {run.positions_per_segment}{patches}"
        )
        majority = majority_accuracy(data["validation"]) if labelled else None
        draw_curves(history, majority, title, output_dir / run_folder.CURVES)
    return Result(metrics, output_dir)


def test_results(source: RunData, trainer: SegmentTrainer, part: Dataset) -> dict[str, Any]:
    """Return the results on the test part, or on the examples of it that the run's settings draw."""
    examples = draw_examples(part, source.run.test_examples, source.run.data_seed)
    return {
        **measure(trainer, source.longest_first(examples), "test"),
        "test_majority_accuracy": majority_accuracy(examples),
        "test_examples": len(examples),
    }


def previous_training(folder: Path) -> dict[str, Any] | None:
    """Return the training that the weights of a run had: its own, and that of the run it began with.

    The budget of pre-training and training together is the sum over the chain. None for a folder
    without `metrics.json`.
    """
    try:
        metrics = json.loads((folder / run_folder.METRICS).read_bytes())
    except (OSError, ValueError):
        return None
    names = ("objective", "steps", "train_tokens", "train_seconds", "init_from_training")
    return {name: metrics.get(name) for name in names}


def measure(trainer: SegmentTrainer, dataset: TokenReader, part: str) -> dict[str, float]:
    """Return loss and accuracy on a part of the data, as `PART_loss` and `PART_accuracy`.

    Without labels there is only the loss.
    """
    metrics = trainer.evaluate(dataset, metric_key_prefix=part)
    names = (f"{part}_accuracy", f"{part}_loss")
    return {name: metrics[name] for name in names if name in metrics}


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the share of correct predictions, in 0 .. 1."""
    return {"accuracy": float(np.mean(prediction.predictions == prediction.label_ids))}


def majority_accuracy(dataset: Dataset) -> float:
    """Return the accuracy of always guessing the commonest class of the part."""
    labels = TokenReader(dataset).labels
    return float(np.bincount(labels).max() / len(labels))
