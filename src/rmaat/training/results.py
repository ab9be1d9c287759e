"""The results of a run: its tests, `metrics.json` and the figures."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from rmaat.machine.files import write_json
from rmaat.machine.provenance import provenance
from rmaat.tasks.files import FilesTask
from rmaat.tasks.reader import TokenReader
from rmaat.tasks.statistics import PartStatistics
from rmaat.training import checkpoints, run_folder
from rmaat.training.baseline import tfidf_score
from rmaat.training.calibration import calibrate, calibration_by_length
from rmaat.training.curves import draw_curves
from rmaat.training.data import RunData, draw_examples
from rmaat.training.evaluation_figures import draw_evaluation
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
    """Store the best model of a trained run, calibrated if the run says so, test it, and write the results.

    Without labels there is no test: the model is judged by its loss on the validation part.
    """
    run, output_dir = source.run, Path(source.run.output_dir)
    history = list(trainer.state.log_history)
    labelled, stages = run.objective == "labels", read_stages(output_dir)
    calibration = calibrate(source, trainer, data["validation"]) if labelled and run.calibration else None
    source = replace(source, label_threshold=trainer.model.config.label_threshold)
    trainer.save_model(str(output_dir))

    test = draw_examples(data["test"], run.test_examples, run.data_seed)
    if calibration is not None and source.info.kind == "text":
        calibration["by_length"] = calibration_by_length(source, trainer, test)
    metrics = {
        **(tested(source, trainer, test) if labelled else {}),
        **measure(source, trainer, data["validation"], "eval"),
        "calibration": calibration,
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
        "problem_type": source.info.problem_type,
        "input_type": run.input_type,
        "patch_size": run.patch_size,
        "model": run.model,
        **provenance(),
        "stages": stage_changes(stages),
        "data": {part: asdict(part_statistics) for part, part_statistics in statistics.items()},
    }
    if trainer.is_world_process_zero():
        if labelled and isinstance(source.task, FilesTask) and len(test) == len(data["test"]):
            score = tfidf_score(source.task, source.problem)
            metrics[f"test_tfidf_{source.problem.main_metric}"] = score
        metrics["files"] = checkpoints.file_records(output_dir, run_folder.recorded_files(output_dir))
        write_json(output_dir / run_folder.METRICS, metrics)
        patches = f" patches of {run.patch_size}" if run.patch_size > 1 else ""
        segments = f"{run.num_segments} segment{'s' * (run.num_segments > 1)}"
        title = f"{run.dataset}, {run.attention_type}, {segments} of {run.positions_per_segment}{patches}"
        guess = None
        if labelled:
            validation_labels = TokenReader(data["validation"]).labels
            guess = next(iter(source.problem.guess(validation_labels, trainer.model.config).values()))
        curves = output_dir / run_folder.CURVES
        draw_curves(history, source.problem, guess, run.metric_for_best_model, title, curves)
        if labelled:
            draw_evaluation(metrics, source.problem, output_dir)
    return Result(metrics, output_dir)


def tested(source: RunData, trainer: SegmentTrainer, part: Dataset) -> dict[str, Any]:
    """Return all measurements on a test part, by their names in `metrics.json`."""
    return {
        **measure(source, trainer, part, "test"),
        **{
            f"test_{name}": value
            for name, value in source.problem.guess(TokenReader(part).labels, trainer.model.config).items()
        },
        "test_examples": len(part),
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


def measure(source: RunData, trainer: SegmentTrainer, part: Dataset, prefix: str) -> dict[str, Any]:
    """Return the loss and the summary of the problem type on a part of the data.

    Without labels there is only the loss.

    Args:
        source: the data of the run.
        trainer: the trainer with the model.
        part: the examples.
        prefix: 'test' or 'eval', at the beginning of each name, as in test_accuracy.
    """
    examples = source.for_evaluation(part)
    if trainer.compute_metrics is None:
        return {f"{prefix}_loss": trainer.evaluate(examples, metric_key_prefix=prefix)[f"{prefix}_loss"]}
    output = trainer.predict(examples, metric_key_prefix=prefix)
    trainer.log(output.metrics)
    problem = source.problem
    summary = problem.summary(output.predictions, output.label_ids, source.info.label_names)
    details = problem.details if prefix != "test" else ()
    return {
        f"{prefix}_loss": output.metrics[f"{prefix}_loss"],
        **{f"{prefix}_{name}": value for name, value in summary.items() if name not in details},
    }
