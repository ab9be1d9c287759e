"""`RunConfig`: one flat set of typed settings, from YAML and `--key value`.

This module does not import torch.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from rmaat.errors import UserError, did_you_mean, quoted
from rmaat.presets import resolve
from rmaat.problems import BEST_METRICS, PROBLEM_SETTINGS, SINGLE_LABEL
from rmaat.recipes import recipe_layers
from rmaat.settings import ModelSettings, without_retired
from rmaat.settings_file import read_settings_file, settings_text
from rmaat.tasks.options import TaskOptions
from rmaat.values import TEXT, Count, Length, OneOf, Range, check_values, checked, descriptions, kinds

AUTO: Literal["auto"] = "auto"

CLASS_WEIGHTS = ("none", "balanced")
OBJECTIVES = ("labels", "masked", "causal")
LR_SCHEDULES = ("linear", "cosine", "constant_with_warmup")

NEED_LABELS: dict[str, Any] = {
    "curriculum": False,
    "masked_loss_weight": 0,
    "label_smoothing_factor": 0,
    "class_weights": "none",
    "segment_loss_weight": 0,
}
"""Settings that need labels, each with the value that turns it off."""

BatchSize = Annotated[int, Range(1, 2**20)]
Decay = Annotated[float, Range(0, 0.999999)]
Seed = Annotated[int, Range(0, 2**32 - 1)]


@dataclass(kw_only=True)
class RunConfig(ModelSettings, TaskOptions):
    """One training run: the settings of the model, of the task, and of the training.

    The first sentence of each description is its line in `rmaat train --help`.

    Args:
        recipe: settings to begin with, one of `rmaat list recipes`. Other settings replace them.
        model: preset of settings, one of `rmaat list models`; null takes the settings as they are.
        match_parameters: number of parameters to reach, within 10%; null means no target. The run
            then chooses intermediate_size, and its setting has no effect.
        max_seq_len: longest sequence, in tokens or values [P]. For one's own documents 0 is the 95th
            percentile of their lengths, in segments of at most 256 tokens; a training batch then has
            at most 65,536 tokens, or 4 examples.
        dataset: the task, one of `rmaat list tasks`.
        data_dir: folder of the data; null means the environment's RMAAT_DATA, else 'datasets'.
        data_seed: seed of the examples that are held out or drawn for evaluation. Held out is the
            validation part of the imdb tasks, and of files without a validation_file. Drawn are
            eval_examples, test_examples and the statistics of pooled_norm. Generated data have
            another seed, see `rmaat data`.
        output_dir: folder of the run. By default it is runs/RECIPE or runs/DATASET, with -MODEL if
            a model is named beside the recipe, and -pretrained for `rmaat pretrain`.
        overwrite: delete the run that output_dir holds, and begin anew.
        resume: continue from the last complete checkpoint in output_dir.
        init_from: output_dir of a finished run whose weights initialise this one; null means none.
            That run may have an easier task, shorter sequences, or other labels. With other labels
            the last layer of the classifier keeps its random initial weights.
        seed: seed of the initial weights, the order of examples and dropout.
        objective: what is learned: the 'labels', 'masked' tokens or values, or each next token
            ('causal'); see `rmaat pretrain`.
        carry_memory: begin each sequence of one's own texts with the memory that the sequence before
            it in the same text left, without gradient. Needs the objective 'causal' and the task
            texts.
        mask_share: share of the positions that are masked; null means the task's, as published in
            arXiv 2310.02980.
        masked_loss_weight: weight of a masked loss beside the loss of the labels; 0 means none.
            Then some positions of each training batch are masked, and predicted too.
        max_steps: optimiser steps; 0 means those of num_train_epochs.
        num_train_epochs: passes over the training part, if max_steps is 0.
        min_steps: least number of steps, if max_steps is 0. Few examples then get more passes than
            num_train_epochs.
        per_device_train_batch_size: examples of one training batch on one device.
        per_device_eval_batch_size: examples of one evaluation batch on one device.
        gradient_accumulation_steps: batches whose gradients make one step.
        learning_rate: highest learning rate, reached after the warm-up.
        lr_scheduler_type: decay of the learning rate: 'linear', 'cosine' or 'constant_with_warmup'.
        warmup_steps: steps over which the learning rate rises from 0.
        weight_decay: weight decay of AdamW.
        adam_beta1: decay of AdamW's average of the gradients.
        adam_beta2: decay of AdamW's average of the squared gradients.
        max_grad_norm: norm to which gradients are clipped; 0 means no clipping.
        bf16: bfloat16 autocast, on CPU or GPU; 'auto' uses it if the device has bf16 arithmetic.
        fp16: float16 autocast with gradient scaling, on GPU.
        torch_compile: compile the segment step.
        eval_steps: steps between evaluations on the validation part, each followed by a checkpoint;
            0 means a tenth of all steps.
        eval_examples: validation examples used during training; 0 means all.
        test_examples: test examples used after training; 0 means all. `rmaat evaluate` uses all.
        logging_steps: steps between reports of the training loss.
        save_total_limit: largest number of checkpoints on disk, including the best.
        metric_for_best_model: metric on the validation part by which the best checkpoint is chosen.
            For classes 'accuracy', 'loss', 'f1_macro' or 'auc'; for several labels 'f1_micro' and
            'exact_match' instead of 'accuracy'; for numbers 'mae', 'loss', 'rmse', 'r2' or 'pearson'.
            Of checkpoints with equal accuracies, F1 or areas the one with the lower loss is better.
            'f1_macro' suits classes of different sizes. 'auc' is the area under the ROC curve; for
            more than two classes the mean, one against the rest.
        ema_decay: decay of a moving average of the weights, for evaluations and the final model; null
            means none. In the first steps s the decay is at most (1 + s) / (10 + s). Training goes
            on with the weights themselves.
        label_smoothing_factor: share of each training target that is spread evenly over all classes.
            The reported validation and test losses stay plain cross-entropies.
        class_weights: weights of the classes in the training loss, 'none' or 'balanced'. With
            'balanced' each class has the same share of the loss: its weight is inversely
            proportional to its number of training examples. With several labels, presence and
            absence of each label share its loss. Validation and test losses have no weights.
        segment_loss_weight: weight of a loss after every segment beside that at the end; 0 means none.
            It is the mean over the segments of an example. It excludes pooled_norm and two_towers.
        calibration: divide the logits of the final model by a temperature that is fitted on the
            validation part. Its probabilities then suit its accuracy better, and its answers stay
            the same. The temperature of texts depends on the number of tokens, and is fitted on
            whole and cut texts. Checkpoints are not changed.
        augmentation: change each training example at random in a way that keeps its label. Only
            some tasks have such a change. Evaluation is not changed.
        early_stopping_patience: evaluations without a better result after which training stops; null
            means never. Better is what metric_for_best_model says.
        curriculum: draw each training batch from examples of one number of segments. The maximum
            number rises with accuracy.
        curriculum_threshold: accuracy at which the curriculum's maximum rises. It is measured on
            validation examples up to the maximum.
        dataloader_num_workers: processes that load data.
        wandb: report to Weights & Biases beside tensorboard.
        wandb_run_name: name of the run in Weights & Biases; null means the name of output_dir.
    """

    recipe: str | None = None
    model: str | None = None
    match_parameters: Annotated[int, Range(1, 2**50)] | None = None
    max_seq_len: Count = 4096
    dataset: str = "listops"
    data_dir: str | None = None
    data_seed: Seed = 0
    output_dir: str = "runs/run"
    overwrite: bool = False
    resume: bool = False
    init_from: str | None = None
    seed: Seed = 0
    objective: Annotated[str, OneOf(OBJECTIVES)] = "labels"
    carry_memory: bool = False
    mask_share: Annotated[float, Range(most=0.95, above=0)] | None = None
    masked_loss_weight: Annotated[float, Range(0, 1e3)] = 0.0
    max_steps: Count = 0
    num_train_epochs: Annotated[float, Range(0, 1e6)] = 1.0
    min_steps: Count = 0
    per_device_train_batch_size: BatchSize = 32
    per_device_eval_batch_size: BatchSize = 64
    gradient_accumulation_steps: BatchSize = 1
    learning_rate: Annotated[float, Range(most=10, above=0)] = 1e-3
    lr_scheduler_type: Annotated[str, OneOf(LR_SCHEDULES)] = "linear"
    warmup_steps: Count = 100
    weight_decay: Annotated[float, Range(0, 100)] = 0.01
    adam_beta1: Decay = 0.9
    adam_beta2: Decay = 0.999
    max_grad_norm: Annotated[float, Range(0, 1e9)] = 1.0
    bf16: bool | Literal["auto"] = False
    fp16: bool = False
    torch_compile: bool = False
    eval_steps: Count = 500
    eval_examples: Count = 0
    test_examples: Count = 0
    logging_steps: Length = 25
    save_total_limit: Length = 2
    metric_for_best_model: Annotated[str, OneOf(BEST_METRICS)] = "accuracy"
    ema_decay: Annotated[float, Range(most=0.999999, above=0)] | None = None
    label_smoothing_factor: Annotated[float, Range(0, 0.999)] = 0.0
    class_weights: Annotated[str, OneOf(CLASS_WEIGHTS)] = "none"
    segment_loss_weight: Annotated[float, Range(0, 1e3)] = 0.0
    calibration: bool = False
    augmentation: bool = False
    early_stopping_patience: Length | None = None
    curriculum: bool = False
    curriculum_threshold: Annotated[float, Range(most=1, above=0)] = 0.95
    dataloader_num_workers: Annotated[int, Range(0, 256)] = 0
    wandb: bool = False
    wandb_run_name: str | None = None

    def check(self) -> None:
        """Raise `UserError` if settings contradict each other or leave their ranges."""
        check_values(self, RunConfig)
        resolve(asdict(self))
        if self.max_seq_len:
            self.check_model()
        if self.max_steps == 0 and not self.num_train_epochs > 0:
            raise UserError("nothing to train: give max_steps or num_train_epochs above 0")
        if self.bf16 and self.fp16:
            raise UserError("bf16 and fp16 exclude each other; bf16 needs no gradient scaling")
        if self.objective == "labels":
            # A generated task may have another type, which `RunData` knows.
            self.check_problem(self.problem_type or SINGLE_LABEL)
        else:
            self._check_without_labels()
        if self.segment_loss_weight:
            for name in ("pooled_norm", "two_towers"):
                if getattr(self, name):
                    raise UserError(
                        f"segment_loss_weight excludes {name}, which needs whole sequences; set {name}: false"
                    )
        if self.curriculum and self.early_stopping_patience is not None:
            raise UserError(
                "early_stopping_patience excludes curriculum, because the accuracy on long examples rises late"
            )
        if self.carry_memory and (self.objective, self.dataset) != ("causal", "texts"):
            raise UserError(
                "carry_memory needs texts that are read in order: objective 'causal' and dataset 'texts', got "
                f"'{self.objective}' and '{self.dataset}'"
            )
        if self.wandb and importlib.util.find_spec("wandb") is None:
            raise UserError("wandb: true needs the package wandb; install it with `pip install 'rmaat[wandb]'`")
        if self.resume and self.overwrite:
            raise UserError("resume and overwrite exclude each other: one continues the run, the other deletes it")

    def _check_without_labels(self) -> None:
        for name, off in NEED_LABELS.items():
            if getattr(self, name) != off:
                raise UserError(
                    f"objective '{self.objective}' excludes {name}, which needs labels; set {name}: {quoted(off)}"
                )
        if self.objective != "causal":
            return
        if not self.causal:
            raise UserError("objective 'causal' needs a model that reads backwards only: set causal: true")
        if self.input_type != "tokens" or self.two_towers:
            raise UserError(
                "objective 'causal' predicts the next token of one sequence: it excludes input_type 'values' and two_towers"
            )

    def check_problem(self, kind: str) -> None:
        """Raise `UserError` if settings do not suit a problem type, one of `rmaat.problems.PROBLEM_TYPES`."""
        problem = PROBLEM_SETTINGS[kind]
        advice = f"; the recipe '{problem.recipe}' has what suits one's own documents" if problem.recipe else ""
        for name, off in problem.excluded.items():
            if getattr(self, name) != off:
                raise UserError(
                    f"problem_type '{kind}' excludes {name}, which {problem.reason}; set {name}: {quoted(off)}{advice}"
                )
        if self.metric_for_best_model not in problem.metrics:
            known = ", ".join(f"'{name}'" for name in problem.metrics)
            raise UserError(
                f"metric_for_best_model '{self.metric_for_best_model}' is none of problem_type '{kind}', whose are "
                f"{known}{advice}"
            )

    @property
    def has_masked_loss(self) -> bool:
        """Whether positions are masked in training, and predicted."""
        return self.objective == "masked" or self.masked_loss_weight > 0

    def model_settings(self) -> dict[str, Any]:
        """Return the settings of the model, for `RmaatConfig`."""
        return {f.name: getattr(self, f.name) for f in fields(ModelSettings)}

    def to_yaml(self) -> str:
        """Return every setting as YAML that `from_yaml` reads.

        `resume` and `overwrite` are false in it: they are meant for one command, and a file with
        them would delete or demand the run of whoever reads it.
        """
        return settings_text({**asdict(self), "resume": False, "overwrite": False})

    @classmethod
    def resolved(cls, *layers: Mapping[str, Any]) -> "RunConfig":
        """Merge layers of settings into a run config, with defaults for the rest.

        The lowest layer is the recipe that one of the layers names. A setting of a later layer
        replaces that of an earlier one, see `rmaat.presets.resolve`. Without an output_dir, the
        folder is runs/RECIPE or runs/DATASET, followed by -MODEL if a layer above the recipe
        names a model.

        Args:
            layers: lowest first, such as the settings of a file and those of the command line.

        Raises:
            UserError: for an unknown recipe or model, a wrong value, or a layer that contradicts its
                own model.
        """
        layers = tuple(map(check_layer, layers))
        merged: dict[str, Any] = {}
        for layer in layers:
            merged |= layer
        recipe = merged.get("recipe")
        settings = resolve(*([] if recipe is None else recipe_layers(recipe)), *layers)
        if "output_dir" not in settings:
            name = str(recipe or settings.get("dataset", cls.dataset)).replace("/", "-")
            model = settings.get("model") if "model" in merged else None
            ending = "" if settings.get("objective", cls.objective) == cls.objective else "-pretrained"
            settings["output_dir"] = f"runs/{name}-{model}{ending}" if model else f"runs/{name}{ending}"
        return cls(**settings)

    @classmethod
    def from_yaml(cls, path: Path) -> "RunConfig":
        """Read a YAML file as `to_yaml` writes it.

        The recipe is not consulted, so a stored run does not change with its recipe.

        Raises:
            UserError: if the file is missing, is not YAML, holds an unknown key, or contradicts
                the model that it names.
        """
        return cls(**resolve(read_settings(path)))


def read_settings(path: Path) -> dict[str, Any]:
    """Return the keys and values of a run config file, each value checked by itself.

    Raises:
        UserError: if the file cannot be read, is not YAML, or holds an unknown key, or a value of
            another type or outside its range.
    """
    where = quoted(str(path))
    settings = without_retired(read_settings_file(path), where)
    return check_layer(settings, where)


def check_layer(settings: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return some settings of a run config, each checked by itself.

    Args:
        settings: names and values.
        where: the file that they are from, for messages; empty for flags and Python.

    Raises:
        UserError: for an unknown name, and for a value of another type or outside its range.
    """
    values = {}
    for key, value in settings.items():
        check_key(str(key), where or "the run config")
        try:
            values[key] = checked(key, value, kinds(RunConfig)[key])
        except UserError as error:
            # YAML reads an unquoted 2 as a number, so show the quotes if text is allowed.
            text = where and descriptions(kinds(RunConfig)[key])[0] == TEXT
            quotes = text and not isinstance(value, str | list | dict | None)
            example = f", as in {key}: '{quoted(value)}'" if quotes else ""
            raise UserError(f"{where}{': ' if where else ''}{error}{example}") from error
    return values


def check_key(key: str, where: str) -> None:
    """Raise `UserError`, naming the nearest setting, if `key` is not a setting."""
    known = [f.name for f in fields(RunConfig)]
    if key not in known:
        raise UserError(f"{where} has no setting {quoted(key)}; {did_you_mean(key, known)}")
