"""One training run, from its config to its result files."""

import os
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from rich.console import Console
from transformers import PrinterCallback, ProgressCallback, TrainingArguments, set_seed
from transformers.integrations import TensorBoardCallback
from transformers.trainer_utils import EvalPrediction

from rmaat.errors import UserError
from rmaat.machine.files import write_json, write_text
from rmaat.machine.provenance import provenance
from rmaat.models import RmaatConfig, RmaatForSequenceClassification
from rmaat.settings import SAME_RESULTS
from rmaat.tasks.base import SPLITS, ProgressBar, no_bar
from rmaat.tasks.reader import TokenReader
from rmaat.tasks.statistics import print_statistics
from rmaat.training import folder as run_folder
from rmaat.training.compiler import check_compiler
from rmaat.training.config import RunConfig
from rmaat.training.curriculum import Curriculum
from rmaat.training.curves import draw_curves
from rmaat.training.data import RunData, drawn
from rmaat.training.finished import FinishedRun
from rmaat.training.pooled import PooledStatistics
from rmaat.training.precision import with_precision
from rmaat.training.progress import Progress
from rmaat.training.trainer import SegmentTrainer
from rmaat.training.weights import begin_from, check_finished


@dataclass(frozen=True)
class Result:
    """What a run reports: `metrics` as in metrics.json, and the folder it lies in."""

    metrics: dict[str, Any]
    output_dir: Path


def train(run: RunConfig, bar: ProgressBar = no_bar) -> Result:
    """Train, keep the best checkpoint by validation accuracy, test it, and write the run's files.

    The folder then holds config.json, model.safetensors, run.yaml, metrics.json and curves.png, the trainer's checkpoints and,
    where own files were read through a tokenizer, that.
    `bar` is shown while the data set is built.

    Raises:
        UserError: for mistakes in the config, the data or the output folder, before training starts.
        TrainingDivergedError: where loss or a gradient stops being finite.
    """
    source = prepared(run)
    run = source.run
    data = source.load(bar)
    statistics = source.statistics(data)
    batch = run.per_device_train_batch_size * int(os.environ.get("WORLD_SIZE", "1"))
    if len(data["train"]) < batch:
        raise UserError(
            f"{run.dataset} has {len(data['train'])} training examples, fewer than one batch of {batch}; lower "
            "per_device_train_batch_size"
        )
    curriculum = Curriculum.of(source, data) if run.curriculum else None
    output_dir = Path(run.output_dir)
    set_seed(run.seed)
    model = build_model(source)
    num_parameters = sum(p.numel() for p in model.parameters())
    # A checkpoint holds the weights and Adam's two moments; the finished model is written once more.
    bytes_needed = 4 * num_parameters * (3 * (run.save_total_limit + 1) + 1)
    checkpoint = resumed_checkpoint(source, model.config) if run.resume else None
    if checkpoint is None and run.init_from is not None:
        source.check_tokenizer(Path(run.init_from))
        begin_from(model, Path(run.init_from))
    # One of several processes makes the folder; the others meet it when the trainer connects them.
    if is_first_process():
        run_folder.prepare(output_dir, bytes_needed, overwrite=run.overwrite, resume=run.resume)
        if not run.resume:
            source.keep_tokenizer(output_dir)
        write_text(output_dir / run_folder.RUN_CONFIG, run.to_yaml())

    trainer = build_trainer(source, model, data, curriculum)
    if trainer.is_world_process_zero():
        print_statistics(statistics, Console(stderr=True, soft_wrap=True))
    trainer.train_from(checkpoint)
    history = list(trainer.state.log_history)
    trainer.save_model(str(output_dir))

    evaluation = measure(trainer, source.longest_first(data["validation"]), "eval")
    tested = drawn(data["test"], run.test_examples, run.data_seed)
    metrics = {
        **measure(trainer, source.longest_first(tested), "test"),
        "test_majority_accuracy": majority_accuracy(tested),
        "test_examples": len(tested),
        **evaluation,
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "train_tokens": trainer.totals["tokens"],
        "train_seconds": round(trainer.totals["seconds"], 1),
        "train_tokens_per_second": round(trainer.totals["tokens"] / max(trainer.totals["seconds"], 1e-9)),
        "training_memory_bytes": trainer.totals["memory"],
        "peak_memory_bytes": trainer.memory.whole,
        "num_parameters": num_parameters,
        "curriculum_levels": trainer.levels if curriculum else None,
        "init_from": run.init_from,
        "seed": run.seed,
        "data_seed": run.data_seed,
        "generator_seed": source.generator_seed,
        "dataset": run.dataset,
        "input_type": run.input_type,
        "patch_size": run.patch_size,
        "model": run.model,
        **provenance(),
        "data": {part: asdict(of_part) for part, of_part in statistics.items()},
    }
    if trainer.is_world_process_zero():
        write_json(output_dir / run_folder.METRICS, metrics)
        patches = f" patches of {run.patch_size}" if run.patch_size > 1 else ""
        title = f"{run.dataset}, {run.attention_type}, {run.num_segments} segments of {run.segment_length}{patches}"
        draw_curves(history, majority_accuracy(data["validation"]), title, output_dir / run_folder.CURVES)
    return Result(metrics, output_dir)


def is_first_process() -> bool:
    """Whether this is the only process or the first that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def resumed_checkpoint(source: RunData, config: RmaatConfig) -> Path:
    """The checkpoint to go on from, of the same model.

    Raises:
        UserError: where there is none, or it is of a model with other settings, labels or another tokenizer.
    """
    run = source.run
    checkpoint = run_folder.last_whole_checkpoint(Path(run.output_dir))
    if checkpoint is None:
        raise UserError(
            f"resume: output_dir '{run.output_dir}' holds no whole checkpoint; use --overwrite to begin anew"
        )
    stored = RmaatConfig.from_pretrained(checkpoint)
    for name in run.model_settings():
        if name not in SAME_RESULTS and getattr(stored, name) != getattr(config, name):
            raise UserError(
                f"resume: {name} is {getattr(config, name)}, but '{checkpoint}' was trained with {getattr(stored, name)}"
            )
    if stored.id2label != config.id2label:
        of_data, of_model = (", ".join(of.id2label.values()) for of in (config, stored))
        raise UserError(f"resume: the labels are {of_data}, but '{checkpoint}' was trained with {of_model}")
    source.check_tokenizer(Path(run.output_dir))
    began = RunConfig.from_yaml(Path(run.output_dir) / run_folder.RUN_CONFIG).init_from
    if began != run.init_from:
        raise UserError(f"resume: init_from is {run.init_from}, but the run in '{run.output_dir}' began from {began}")
    return checkpoint


def evaluate(finished: FinishedRun, data_dir: str | None = None, bar: ProgressBar = no_bar) -> dict[str, Any]:
    """Loss and accuracy of a finished run on its task's test part; `bar` is shown while the data set is built.

    Raises:
        UserError: where the data is missing or malformed, or one's own test file has a label that the model has not.
    """
    config = finished.config
    # What was trained in float16 on a GPU can be measured without one.
    fp16 = config.fp16 and device() == "cuda"
    run = for_device(replace(config, data_dir=data_dir or config.data_dir, fp16=fp16))
    source = replace(finished.source, run=run)
    with tempfile.TemporaryDirectory() as scratch:
        test = source.test_part(Path(scratch), bar)
        scratched = replace(source, run=replace(run, output_dir=scratch, wandb=False))
        # The trainer asks for every part, but where it only measures it reads the one that it is given to measure.
        trainer = build_trainer(scratched, finished.model, DatasetDict(dict.fromkeys(SPLITS, test)))
        # It would write beside the caller's files, since no training told it where.
        trainer.remove_callback(TensorBoardCallback)
        found = measure(trainer, source.longest_first(test), "test")
        return {**found, "test_majority_accuracy": majority_accuracy(test), "test_examples": len(test)}


def device() -> str:
    """Where runs compute: 'cuda' if there is one, else 'cpu'."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def prepared(run: RunConfig) -> RunData:
    """The run's data and, under `run`, its settings as run.yaml holds them: checked, of this device and of the size asked for.

    Raises:
        UserError: where settings contradict themselves, their task or the device, or the run to begin from is not there.
    """
    run.check()
    if run.init_from is not None and not run.resume:
        check_finished(Path(run.init_from))
    return RunData.of(for_device(run)).sized()


def for_device(run: RunConfig) -> RunConfig:
    """The run as it can be done on the device there is; raises `UserError` where it cannot."""
    if run.torch_compile:
        check_compiler(device())
    return with_precision(run, device())


def build_model(source: RunData) -> RmaatForSequenceClassification:
    """The model of a run for its task, at its initial weights."""
    return RmaatForSequenceClassification(RmaatConfig(**source.model_settings()))


def build_trainer(
    source: RunData, model: RmaatForSequenceClassification, data: DatasetDict, curriculum: Curriculum | None = None
) -> SegmentTrainer:
    """The trainer of a run over the parts of its data."""
    run = source.run
    if run.torch_compile:
        # The segment step alone: one graph serves all segments, where the whole loop would be unrolled.
        model.rmaat.encoder.compile(dynamic=False)
    cuda = device() == "cuda"
    arguments = TrainingArguments(
        output_dir=run.output_dir,
        seed=run.seed,
        use_cpu=not cuda,
        max_steps=run.max_steps or -1,
        num_train_epochs=run.num_train_epochs,
        per_device_train_batch_size=run.per_device_train_batch_size,
        per_device_eval_batch_size=run.per_device_eval_batch_size,
        gradient_accumulation_steps=run.gradient_accumulation_steps,
        learning_rate=run.learning_rate,
        lr_scheduler_type=run.lr_scheduler_type,
        warmup_steps=run.warmup_steps,
        weight_decay=run.weight_decay,
        max_grad_norm=run.max_grad_norm,
        bf16=run.bf16 is True,
        fp16=run.fp16,
        eval_strategy="steps",
        eval_steps=run.eval_steps,
        save_strategy="steps",
        save_steps=run.eval_steps,
        save_total_limit=run.save_total_limit,
        load_best_model_at_end=True,
        metric_for_best_model="rank",
        logging_steps=run.logging_steps,
        logging_nan_inf_filter=False,
        dataloader_num_workers=run.dataloader_num_workers,
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        report_to=["tensorboard", "wandb"] if run.wandb else ["tensorboard"],
        run_name=run.wandb_run_name or Path(run.output_dir).name,
        # In a batch of single segments nobody reads what is handed on, so that what makes it has no gradient: learned factors, the
        # gate, what is written to an associative memory. Truncation may leave the first memory without one.
        ddp_find_unused_parameters=run.schedule == "learned"
        or run.retention_form == "gate"
        or run.associative_memory
        or run.truncated_segments is not None,
    )
    # Copies of the model in one process have no parameters of their own to replay with; torchrun starts a process a GPU.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    # Drawn: the first ones of a file may be of one kind.
    validation = drawn(data["validation"], run.eval_examples, run.data_seed)
    trainer = SegmentTrainer(
        model=model,
        args=arguments,
        train_dataset=TokenReader(data["train"]),
        eval_dataset=source.longest_first(validation),
        train_lengths=source.lengths(data["train"]),
        curriculum=curriculum,
        data_collator=source.collator(),
        compute_metrics=accuracy,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    if run.pooled_norm and len(data["train"]) > 1:
        trainer.add_callback(PooledStatistics(source, data["train"]))
    return trainer


def measure(trainer: SegmentTrainer, dataset: TokenReader, part: str) -> dict[str, float]:
    """Loss and accuracy on a part of the data, as `PART_loss` and `PART_accuracy`."""
    found = trainer.evaluate(dataset, metric_key_prefix=part)
    return {f"{part}_{name}": found[f"{part}_{name}"] for name in ("accuracy", "loss")}


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of right predictions, in 0 .. 1."""
    return {"accuracy": float(np.mean(prediction.predictions == prediction.label_ids))}


def majority_accuracy(dataset: Dataset) -> float:
    """Accuracy of always guessing the commonest class of the part."""
    labels = TokenReader(dataset).labels
    return float(np.bincount(labels).max() / len(labels))
