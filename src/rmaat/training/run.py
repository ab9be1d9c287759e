"""`train` and `evaluate`: one run, from its config to its result files."""

import os
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
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
from rmaat.terminal import console
from rmaat.training import run_folder
from rmaat.training.compiler import check_compiler
from rmaat.training.config import RunConfig
from rmaat.training.curriculum import Curriculum
from rmaat.training.curves import draw_curves
from rmaat.training.data import RunData, draw_examples
from rmaat.training.finished_run import FinishedRun
from rmaat.training.pooled_norm import PooledNormStatistics
from rmaat.training.precision import with_precision
from rmaat.training.progress import Progress
from rmaat.training.stored_model import check_finished_run, load_initial_weights
from rmaat.training.trainer import SegmentTrainer


@dataclass(frozen=True)
class Result:
    """The result of a run: the content of metrics.json, and the run's folder."""

    metrics: dict[str, Any]
    output_dir: Path


def train(run: RunConfig, bar: ProgressBar = no_bar) -> Result:
    """Train a model, test its best checkpoint by validation accuracy, and write the run's files.

    The folder then holds config.json, model.safetensors, run.yaml, metrics.json, curves.png and the
    trainer's checkpoints. It also holds the tokenizer of the user's own files, if there is one.

    Args:
        run: the settings.
        bar: shown while the data set is built.

    Raises:
        UserError: for mistakes in the config, the data or the output folder, before training starts.
        TrainingDivergedError: if the loss or a gradient stops being finite.
    """
    source = prepare_data(run)
    run = source.run
    data = source.load(bar)
    statistics = source.statistics(data)
    batch = run.per_device_train_batch_size * int(os.environ.get("WORLD_SIZE", "1"))
    if len(data["train"]) < batch:
        raise UserError(
            f"{run.dataset} has {len(data['train'])} training examples, fewer than one batch of "
            f"{batch}; lower per_device_train_batch_size"
        )
    curriculum = Curriculum.of(source, data) if run.curriculum else None
    output_dir = Path(run.output_dir)
    set_seed(run.seed)
    model = build_model(source)
    num_parameters = sum(p.numel() for p in model.parameters())
    # A checkpoint holds the weights and Adam's two moments. The best model is written once more.
    bytes_needed = 4 * num_parameters * (3 * (run.save_total_limit + 1) + 1)
    checkpoint = resumed_checkpoint(source, model.config) if run.resume else None
    if checkpoint is None and run.init_from is not None:
        source.check_tokenizer(Path(run.init_from))
        load_initial_weights(model, Path(run.init_from))
    # The first of several processes makes the folder. The others need it only after the trainer has
    # connected them.
    if is_first_process():
        run_folder.prepare(output_dir, bytes_needed, overwrite=run.overwrite, resume=run.resume)
        if not run.resume:
            source.save_tokenizer(output_dir)
        write_text(output_dir / run_folder.RUN_CONFIG, run.to_yaml())

    trainer = build_trainer(source, model, data, curriculum)
    if trainer.is_world_process_zero():
        print_statistics(statistics, console(stderr=True))
    trainer.train_from(checkpoint)
    history = list(trainer.state.log_history)
    trainer.save_model(str(output_dir))

    evaluation = measure(trainer, source.longest_first(data["validation"]), "eval")
    test_examples = draw_examples(data["test"], run.test_examples, run.data_seed)
    metrics = {
        **measure(trainer, source.longest_first(test_examples), "test"),
        "test_majority_accuracy": majority_accuracy(test_examples),
        "test_examples": len(test_examples),
        **evaluation,
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "train_tokens": trainer.totals["tokens"],
        "train_seconds": round(trainer.totals["seconds"], 1),
        "train_tokens_per_second": round(trainer.totals["tokens"] / max(trainer.totals["seconds"], 1e-9)),
        "training_memory_bytes": trainer.totals["memory"],
        "peak_memory_bytes": trainer.memory.process_peak,
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
        "data": {part: asdict(part_statistics) for part, part_statistics in statistics.items()},
    }
    if trainer.is_world_process_zero():
        write_json(output_dir / run_folder.METRICS, metrics)
        patches = f" patches of {run.patch_size}" if run.patch_size > 1 else ""
        title = (
            f"{run.dataset}, {run.attention_type}, {run.num_segments} segments of {run.positions_per_segment}{patches}"
        )
        draw_curves(history, majority_accuracy(data["validation"]), title, output_dir / run_folder.CURVES)
    return Result(metrics, output_dir)


def is_first_process() -> bool:
    """Return True in the only process, or in the first that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def resumed_checkpoint(source: RunData, config: RmaatConfig) -> Path:
    """Return the checkpoint from which a run resumes.

    Raises:
        UserError: if there is none, or its model has other settings, labels or another tokenizer,
            or the run began with other weights.
    """
    run = source.run
    checkpoint = run_folder.last_complete_checkpoint(Path(run.output_dir))
    if checkpoint is None:
        raise UserError(
            f"resume: output_dir '{run.output_dir}' holds no complete checkpoint; use --overwrite to begin anew"
        )
    stored = RmaatConfig.from_pretrained(checkpoint)
    for name in run.model_settings():
        if name not in SAME_RESULTS and getattr(stored, name) != getattr(config, name):
            raise UserError(
                f"resume: {name} is {getattr(config, name)}, but '{checkpoint}' was trained with "
                f"{getattr(stored, name)}"
            )
    if stored.id2label != config.id2label:
        data_labels, stored_labels = (", ".join(x.id2label.values()) for x in (config, stored))
        raise UserError(f"resume: the labels are {data_labels}, but '{checkpoint}' was trained with {stored_labels}")
    source.check_tokenizer(Path(run.output_dir))
    init_from = RunConfig.from_yaml(Path(run.output_dir) / run_folder.RUN_CONFIG).init_from
    if init_from != run.init_from:
        raise UserError(
            f"resume: init_from is {run.init_from}, but the run in '{run.output_dir}' began from {init_from}"
        )
    return checkpoint


def evaluate(finished: FinishedRun, data_dir: str | None = None, bar: ProgressBar = no_bar) -> dict[str, Any]:
    """Return loss and accuracy of a finished run on the whole test part of its task.

    Args:
        finished: the run.
        data_dir: folder of the data; None means that of the run.
        bar: shown while the data set is built.

    Raises:
        UserError: if the data is missing or malformed, or the user's own test file has a label
            unknown to the model.
    """
    config = finished.config
    # A model trained in float16 on a GPU can be evaluated in float32 on a CPU.
    fp16 = config.fp16 and device() == "cuda"
    run = for_device(replace(config, data_dir=data_dir or config.data_dir, fp16=fp16))
    source = replace(finished.source, run=run)
    with tempfile.TemporaryDirectory() as scratch:
        test = source.test_part(Path(scratch), bar)
        scratch_source = replace(source, run=replace(run, output_dir=scratch, wandb=False))
        # The trainer takes all three parts, but evaluation reads only the test part.
        trainer = build_trainer(scratch_source, finished.model, DatasetDict(dict.fromkeys(SPLITS, test)))
        # Without training, tensorboard has no folder and would write to the current one.
        trainer.remove_callback(TensorBoardCallback)
        metrics = measure(trainer, source.longest_first(test), "test")
        return {**metrics, "test_majority_accuracy": majority_accuracy(test), "test_examples": len(test)}


def device() -> str:
    """Return the device of all runs: 'cuda' if there is one, else 'cpu'."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def prepare_data(run: RunConfig) -> RunData:
    """Return the data of a run, after checking and completing its settings.

    The result's `run` holds the settings as run.yaml stores them: with the precision for this
    device, and the intermediate_size that match_parameters requires.

    Raises:
        UserError: if settings contradict each other, the task or the device, or the run of
            init_from is missing.
    """
    run.check()
    if run.init_from is not None and not run.resume:
        check_finished_run(Path(run.init_from))
    return RunData.of(for_device(run)).with_matched_parameters()


def for_device(run: RunConfig) -> RunConfig:
    """Return the run's settings for this device; raise `UserError` if it cannot run them."""
    if run.torch_compile:
        check_compiler(device())
    return with_precision(run, device())


def build_model(source: RunData) -> RmaatForSequenceClassification:
    """Return the model of a run, with initial weights."""
    return RmaatForSequenceClassification(RmaatConfig(**source.model_settings()))


def build_trainer(
    source: RunData, model: RmaatForSequenceClassification, data: DatasetDict, curriculum: Curriculum | None = None
) -> SegmentTrainer:
    """Return the trainer of a run over the parts of its data."""
    run = source.run
    if run.torch_compile:
        # Compile the segment step only: its graph serves all segments. Compiling the whole model
        # would unroll the loop over segments.
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
        # In a batch of single segments no segment reads the memory. Then the parameters that only
        # change it have no gradient: learned factors, the gate, the map of associative values.
        # Truncation may leave the first memory without a gradient.
        ddp_find_unused_parameters=run.schedule == "learned"
        or run.retention_form == "gate"
        or run.associative_memory
        or run.truncated_segments is not None,
    )
    # Use one GPU per process, because replay needs real parameters and DataParallel's copies have
    # none. torchrun starts a process for each GPU.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    # Draw the examples at random, because the first ones of a file may all be of one class.
    validation = draw_examples(data["validation"], run.eval_examples, run.data_seed)
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
        trainer.add_callback(PooledNormStatistics(source, data["train"]))
    return trainer


def measure(trainer: SegmentTrainer, dataset: TokenReader, part: str) -> dict[str, float]:
    """Return loss and accuracy on a part of the data, as `PART_loss` and `PART_accuracy`."""
    metrics = trainer.evaluate(dataset, metric_key_prefix=part)
    return {f"{part}_{name}": metrics[f"{part}_{name}"] for name in ("accuracy", "loss")}


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the share of correct predictions, in 0 .. 1."""
    return {"accuracy": float(np.mean(prediction.predictions == prediction.label_ids))}


def majority_accuracy(dataset: Dataset) -> float:
    """Return the accuracy of always guessing the commonest class of the part."""
    labels = TokenReader(dataset).labels
    return float(np.bincount(labels).max() / len(labels))
