"""`train` and `evaluate`: one run, from its config to its result files."""

import math
import os
import sys
import tempfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, PrinterCallback, TrainingArguments, set_seed
from transformers.integrations import TensorBoardCallback

from rmaat.errors import UserError
from rmaat.machine.files import write_text
from rmaat.machine.provenance import provenance
from rmaat.models import RmaatConfig, RmaatForCausalLM, RmaatForMaskedLM, RmaatForSequenceClassification
from rmaat.problems import REGRESSION
from rmaat.tasks.base import SPLITS, ProgressBar, no_bar
from rmaat.tasks.reader import TokenReader
from rmaat.tasks.statistics import part_statistics, print_statistics
from rmaat.terminal import console
from rmaat.training import checkpoints, run_folder
from rmaat.training.batches import TrainingExamples
from rmaat.training.compiler import check_compiler
from rmaat.training.config import RunConfig
from rmaat.training.curriculum import Curriculum
from rmaat.training.data import RunData, draw_examples
from rmaat.training.finished_run import FinishedRun
from rmaat.training.label_loss import LabelLoss
from rmaat.training.model_card import model_card
from rmaat.training.pooled_norm import PooledNormStatistics
from rmaat.training.precision import with_precision
from rmaat.training.progress import Progress
from rmaat.training.quiet import quiet_transformers
from rmaat.training.results import Result, finish, previous_training, tested
from rmaat.training.stages import Stage, append_stage, check_same_run, read_stages
from rmaat.training.stored_model import check_finished_run, load_initial_weights
from rmaat.training.trainer import CausalObjective, MaskedObjective, SegmentTrainer, float_logits, reported_metrics

EVALUATIONS = 10
"""Evaluations during training, if eval_steps is 0."""


@quiet_transformers()
def train(run: RunConfig, bar: ProgressBar = no_bar) -> Result:
    """Train a model, test its best checkpoint by validation accuracy, and write the run's files.

    The folder then holds config.json, model.safetensors, run.yaml, metrics.json, the figures, the model
    card README.md and the trainer's checkpoints. It also holds the tokenizer of a task of texts.

    Args:
        run: the settings.
        bar: shown while the data set is built.

    Raises:
        UserError: for mistakes in the config, the data or the output folder, before training starts.
        TrainingDivergedError: if the loss or a gradient stops being finite.
    """
    chosen_lengths = run.max_seq_len == 0
    source = prepare_data(run)
    data, data_digest = source.load(bar), source.data_digest()
    run = with_eval_steps(source.run, len(data["train"]))
    source = replace(source, run=run)
    statistics = source.statistics(data)
    batch = run.per_device_train_batch_size * int(os.environ.get("WORLD_SIZE", "1"))
    if len(data["train"]) < batch:
        raise UserError(
            f"{run.dataset} has {len(data['train'])} training examples, fewer than one batch of "
            f"{batch}; lower per_device_train_batch_size"
        )
    curriculum = Curriculum.of(source, data) if run.curriculum else None
    check_best_metric(source, data["validation"])
    set_seed(run.seed)
    model = build_model(source)
    set_label_scale(model.config, data["train"])
    num_parameters = sum(p.numel() for p in model.parameters())
    # A checkpoint holds the weights, their average if there is one, and Adam's two moments. The best
    # model is written once more.
    copies = 3 if run.ema_decay is None else 4
    bytes_needed = 4 * num_parameters * (copies * (run.save_total_limit + 1) + 1)
    if not run.resume:
        # Before the folder is cleared, because the weights may not fit.
        initialise(source, model)
    with run_folder.claimed(Path(run.output_dir), bytes_needed):
        checkpoint = begin(source, data_digest)
        if checkpoint is None and run.resume:
            initialise(source, model)
        trainer = build_trainer(source, model, data, curriculum)
        if trainer.is_world_process_zero():
            print_statistics(statistics, console(stderr=True))
            if chosen_lengths:
                lengths = f"max_seq_len {run.max_seq_len}, num_segments {run.num_segments}"
                batch_size = f"per_device_train_batch_size {run.per_device_train_batch_size}"
                print(f"by the documents' lengths: {lengths}, {batch_size}", file=sys.stderr)
        try:
            trainer.train_from(checkpoint)
        finally:
            progress = trainer.pop_callback(Progress)
            assert progress is not None
            progress.close()
        result = finish(source, trainer, data, statistics)
        if trainer.is_world_process_zero():
            uses = {"classifies_text": source.classifies_text, "reads_any_length": source.reads_any_length}
            card = model_card(run, result.metrics, **uses)
            write_text(result.output_dir / run_folder.CARD, card)
        return result


def check_best_metric(source: RunData, validation: Dataset) -> None:
    """Raise `UserError` if the metric of the best checkpoint is not known on the validation part."""
    run, metric = source.run, source.run.metric_for_best_model
    if run.objective != "labels":
        return
    labels = TokenReader(draw_examples(validation, run.eval_examples, run.data_seed)).labels
    needs = source.problem.unknown_metric(metric, labels, source.info.label_names)
    if needs is not None:
        other = "f1_macro" if metric == "auc" else source.problem.main_metric
        raise UserError(
            f"metric_for_best_model '{metric}' needs {needs}; add some, raise eval_examples, or take '{other}'"
        )


def initialise(source: RunData, model: PreTrainedModel) -> None:
    """Load the weights of `init_from` into the model, if the run has one.

    Raises:
        UserError: if there is no such run, or its weights or its tokenizer do not fit.
    """
    if source.run.init_from is not None:
        folder = Path(source.run.init_from)
        source.check_tokenizer(folder)
        load_initial_weights(model, folder)


def begin(source: RunData, data_digest: str) -> Path | None:
    """Prepare the folder of a new run, or check that of a resumed one; the caller holds its lock.

    Returns:
        The checkpoint from which the run resumes, or None if it begins at the first step.

    Raises:
        UserError: see `resumed_checkpoint` and `run_folder.clear`.
    """
    run = source.run
    folder = Path(run.output_dir)
    previous = None if run.init_from is None else previous_training(Path(run.init_from))
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    stage = Stage(0, asdict(run), data_digest, processes, **provenance(), init_from_training=previous)
    checkpoint = resumed_checkpoint(source, stage) if run.resume else None
    # The first of several processes prepares the folder. The others need it only after the trainer
    # has connected them.
    if not is_first_process():
        return checkpoint
    if checkpoint is None:
        run_folder.clear(folder, overwrite=run.overwrite or run.resume)
        source.save_tokenizer(folder)
    else:
        # From here to the end the folder holds no finished run.
        run_folder.clear_results(folder)
        checkpoints.remove_later(checkpoint)
        stage = replace(stage, step=checkpoints.step_of(checkpoint))
    append_stage(folder, stage)
    write_text(folder / run_folder.RUN_CONFIG, run.to_yaml(), sync=True)
    return checkpoint


def is_first_process() -> bool:
    """Return True in the only process, or in the first that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def resumed_checkpoint(source: RunData, stage: Stage) -> Path | None:
    """Return the checkpoint from which a run resumes; None if it has none and begins at the start.

    Args:
        source: the data of the resumed run.
        stage: its settings and data.

    Raises:
        UserError: if its checkpoints are damaged, or settings, data or tokenizer are not those of
            the run in the folder.
    """
    folder = Path(source.run.output_dir)
    checkpoint = checkpoints.last_usable_checkpoint(folder)
    if (folder / run_folder.RUN_CONFIG).is_file():
        source.check_tokenizer(folder)
        check_same_run(stage, read_stages(folder)[-1], folder)
    elif checkpoint is not None:
        raise UserError(
            f"resume: '{folder}' has no {run_folder.RUN_CONFIG}, because a new run was interrupted "
            "before it began; use --overwrite to begin it anew"
        )
    if checkpoint is None and (folder / run_folder.METRICS).exists():
        raise UserError(f"resume: the run in '{folder}' is finished, and it has no checkpoint to continue from")
    if checkpoint is None and is_first_process():
        print(f"note: '{folder}' holds no checkpoint yet; the run begins at the first step", file=sys.stderr)
    return checkpoint


@quiet_transformers()
def evaluate(finished: FinishedRun, data_dir: str | None = None, bar: ProgressBar = no_bar) -> dict[str, Any]:
    """Return the measurements of a finished run on the whole test part of its task.

    They have the names that they have in metrics.json: test_examples, test_loss, and the guesses and
    the summary of the problem type, such as test_majority_accuracy and test_accuracy.

    Texts are truncated as in training, so the figures are those of metrics.json. `test_notes` says
    how many were, and how many rows were skipped.

    Args:
        finished: the run; `FinishedRun.with_test_file` chooses another file.
        data_dir: folder of the data; None means that of the run.
        bar: shown while the data set is built.

    Raises:
        UserError: if the data is missing or malformed, or the user's own test file has a label
            unknown to the model; if the test part was held out of a file that has changed.
    """
    finished.check_held_out_test()
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
        notes = {"test_notes": list(part_statistics(test).evaluation_notes())}
        return {**tested(source, trainer, test), **notes}


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
        check_finished_run(Path(run.init_from), "init_from ")
    return RunData.of(for_device(run)).with_matched_parameters()


def for_device(run: RunConfig) -> RunConfig:
    """Return the run's settings for this device; raise `UserError` if it cannot run them."""
    if run.torch_compile:
        check_compiler(device())
    return with_precision(run, device())


def build_model(source: RunData) -> RmaatForSequenceClassification | RmaatForMaskedLM | RmaatForCausalLM:
    """Return the model of a run, with initial weights."""
    return source.model_class(RmaatConfig(**source.model_settings()))


def set_label_scale(config: RmaatConfig, train_part: Dataset) -> None:
    """Store mean and deviation of a regression's training labels in the config; see `RmaatConfig`."""
    if config.problem == REGRESSION:
        labels = TokenReader(train_part).labels
        # If only the examples held out differ, the deviation is 0.
        config.label_mean, config.label_std = float(labels.mean()), float(labels.std()) or 1.0


def label_loss(source: RunData, train_part: Dataset, label_std: float = 1.0) -> LabelLoss:
    """Return the loss of the labels in training, with weights from the classes of the training part."""
    run, weights = source.run, None
    if run.class_weights == "balanced":
        weights = source.problem.balanced_weights(TokenReader(train_part).labels, len(source.info.label_names))
    return LabelLoss(
        source.info.problem_type,
        label_std,
        run.label_smoothing_factor,
        weights,
        run.segment_loss_weight,
        run.tokens_per_segment,
    )


def last_step(run: RunConfig, examples: int) -> int:
    """Return the number of steps of a run with so many training examples."""
    if run.max_steps:
        return run.max_steps
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    batches = examples // (run.per_device_train_batch_size * processes)
    of_an_epoch = max(1, -(-batches // run.gradient_accumulation_steps))
    return max(math.ceil(of_an_epoch * run.num_train_epochs), run.min_steps)


def with_eval_steps(run: RunConfig, examples: int) -> RunConfig:
    """Return the run with an eval_steps of 0 replaced by a tenth of its steps, or by that of the run it resumes."""
    if run.eval_steps:
        return run
    previous = Path(run.output_dir) / run_folder.RUN_CONFIG
    if run.resume and previous.is_file():
        return replace(run, eval_steps=RunConfig.from_yaml(previous).eval_steps)
    return replace(run, eval_steps=max(1, last_step(run, examples) // EVALUATIONS))


def build_trainer(
    source: RunData, model: PreTrainedModel, data: DatasetDict, curriculum: Curriculum | None = None
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
        disable_tqdm=True,
        max_steps=last_step(run, len(data["train"])),
        per_device_train_batch_size=run.per_device_train_batch_size,
        per_device_eval_batch_size=run.per_device_eval_batch_size,
        gradient_accumulation_steps=run.gradient_accumulation_steps,
        learning_rate=run.learning_rate,
        lr_scheduler_type=run.lr_scheduler_type,
        warmup_steps=run.warmup_steps,
        weight_decay=run.weight_decay,
        adam_beta1=run.adam_beta1,
        adam_beta2=run.adam_beta2,
        max_grad_norm=run.max_grad_norm,
        bf16=run.bf16 is True,
        fp16=run.fp16,
        eval_strategy="steps",
        eval_steps=run.eval_steps,
        save_strategy="steps",
        save_steps=run.eval_steps,
        save_total_limit=run.save_total_limit,
        load_best_model_at_end=True,
        # The Trainer of transformers looks for labels among the arguments of the model's forward.
        label_names=["labels"],
        metric_for_best_model="rank",
        # The logits of a large part leave the device every few batches, and stay in a list: joining
        # them batch by batch would copy all of them each time.
        eval_accumulation_steps=16,
        eval_do_concat_batches=False,
        logging_steps=run.logging_steps,
        logging_nan_inf_filter=False,
        dataloader_num_workers=run.dataloader_num_workers,
        dataloader_pin_memory=cuda,
        remove_unused_columns=False,
        report_to=["tensorboard", "wandb"] if run.wandb else ["tensorboard"],
        run_name=run.wandb_run_name or Path(run.output_dir).name,
        # In a batch of single segments no segment reads the memory. Then the parameters that only
        # change it have no gradient: learned factors, the gate, the map of associative values.
        # Truncation may leave the first memory without a gradient, and no loss reads the memory after
        # the last segment if there is no classifier.
        ddp_find_unused_parameters=run.schedule == "learned"
        or run.retention_form == "gate"
        or run.associative_memory
        or run.truncated_segments is not None
        or source.model_class is not RmaatForSequenceClassification,
    )
    # Use one GPU per process, because replay needs real parameters and DataParallel's copies have
    # none. torchrun starts a process for each GPU.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    objective: MaskedObjective | CausalObjective | None = CausalObjective() if run.objective == "causal" else None
    if run.has_masked_loss:
        weight = run.masked_loss_weight if run.objective == "labels" else None
        objective = MaskedObjective(source.mask_share, run.patch_size, weight)
    train_reader = TokenReader(data["train"])
    trainer = SegmentTrainer(
        model=model,
        args=arguments,
        train_dataset=TrainingExamples(train_reader, source.augmentation(), run.seed, run.carry_memory),
        eval_dataset=source.for_evaluation(data["validation"], run.eval_examples),
        train_lengths=source.lengths(data["train"]),
        curriculum=curriculum,
        carry_labels=train_reader.labels if run.carry_memory else None,
        problem=source.problem,
        best_metric=run.metric_for_best_model,
        ema_decay=run.ema_decay,
        patience=run.early_stopping_patience,
        label_loss=label_loss(source, data["train"], model.config.label_std),
        data_collator=source.collator(),
        objective=objective,
        compute_metrics=partial(reported_metrics, problem=source.problem) if run.objective == "labels" else None,
        preprocess_logits_for_metrics=float_logits,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress(source.problem, run.metric_for_best_model))
    if run.pooled_norm and run.objective == "labels" and len(data["train"]) > 1:
        trainer.add_callback(PooledNormStatistics(source, data["train"], trainer.averaged_weights))
    return trainer
