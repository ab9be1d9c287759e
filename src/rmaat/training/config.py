"""`RunConfig`: one flat set of typed settings, from YAML and `--key value`.

This module does not import torch.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from rmaat.errors import UserError, did_you_mean
from rmaat.presets import resolve
from rmaat.recipes import recipe_layers
from rmaat.settings import ModelSettings, one_of, without_retired
from rmaat.settings_file import parse_settings
from rmaat.tasks.options import TaskOptions

AUTO: Literal["auto"] = "auto"

BEST_METRICS = ("accuracy", "loss")
LR_SCHEDULES = ("linear", "cosine", "constant_with_warmup")


@dataclass(kw_only=True)
class RunConfig(ModelSettings, TaskOptions):
    """One training run: the settings of the model, of the task, and of the training.

    The first sentence of each description is its line in `rmaat train --help`.

    Args:
        recipe: settings to begin with, one of `rmaat list recipes`. Other settings replace them.
        model: preset of settings, one of `rmaat list models`; null takes the settings as they are.
        match_parameters: number of parameters to reach, within 10%; null means no target. The run
            then chooses intermediate_size, and its setting has no effect.
        dataset: the task, one of `rmaat list tasks`.
        data_dir: folder of the data; null means the environment's RMAAT_DATA, else 'datasets'.
        data_seed: seed of the examples that are held out or drawn for evaluation. Held out is the
            validation part of the imdb tasks, and of files without a validation_file. Drawn are
            eval_examples, test_examples and the statistics of pooled_norm. Generated data have
            another seed, see `rmaat data`.
        output_dir: folder of the run. By default it is runs/RECIPE or runs/DATASET, with -MODEL if
            a model is named beside the recipe.
        overwrite: delete the run that output_dir holds, and begin anew.
        resume: continue from the last complete checkpoint in output_dir.
        init_from: output_dir of a finished run whose weights initialise this one; null means none.
            That run may have an easier task, shorter sequences, or other labels. With other labels
            the last layer of the classifier keeps its random initial weights.
        seed: seed of the initial weights, the order of examples and dropout.
        max_steps: optimiser steps; 0 means those of num_train_epochs.
        num_train_epochs: passes over the training part, if max_steps is 0.
        per_device_train_batch_size: examples of one training batch on one device.
        per_device_eval_batch_size: examples of one evaluation batch on one device.
        gradient_accumulation_steps: batches whose gradients make one step.
        learning_rate: highest learning rate, reached after the warm-up.
        lr_scheduler_type: decay of the learning rate: 'linear', 'cosine' or 'constant_with_warmup'.
        warmup_steps: steps over which the learning rate rises from 0.
        weight_decay: weight decay of AdamW.
        max_grad_norm: norm to which gradients are clipped; 0 means no clipping.
        bf16: bfloat16 autocast, on CPU or GPU; 'auto' uses it if the device has bf16 arithmetic.
        fp16: float16 autocast with gradient scaling, on GPU.
        torch_compile: compile the segment step.
        eval_steps: steps between evaluations on the validation part, each followed by a checkpoint.
        eval_examples: validation examples used during training; 0 means all.
        test_examples: test examples used after training; 0 means all. `rmaat evaluate` uses all.
        logging_steps: steps between reports of the training loss.
        save_total_limit: largest number of checkpoints on disk, including the best.
        metric_for_best_model: 'accuracy' or 'loss' on the validation part, by which the best checkpoint
            is chosen. Of equal accuracies the one with the lower loss is better.
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
    match_parameters: int | None = None
    dataset: str = "listops"
    data_dir: str | None = None
    data_seed: int = 0
    output_dir: str = "runs/run"
    overwrite: bool = False
    resume: bool = False
    init_from: str | None = None
    seed: int = 0
    max_steps: int = 0
    num_train_epochs: float = 1.0
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 64
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-3
    lr_scheduler_type: str = "linear"
    warmup_steps: int = 100
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    bf16: bool | Literal["auto"] = False
    fp16: bool = False
    torch_compile: bool = False
    eval_steps: int = 500
    eval_examples: int = 0
    test_examples: int = 0
    logging_steps: int = 25
    save_total_limit: int = 2
    metric_for_best_model: str = "accuracy"
    curriculum: bool = False
    curriculum_threshold: float = 0.95
    dataloader_num_workers: int = 0
    wandb: bool = False
    wandb_run_name: str | None = None

    def check(self) -> None:
        """Raise `UserError` if settings contradict each other or leave their ranges."""
        resolve(asdict(self))
        self.check_model()
        if self.match_parameters is not None and self.match_parameters < 1:
            raise UserError(f"match_parameters must be >= 1, not {self.match_parameters}")
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be >= 1, not {getattr(self, name)}")
        for name in ("eval_steps", "logging_steps", "save_total_limit"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be >= 1, not {getattr(self, name)}")
        for name in (
            "max_steps",
            "warmup_steps",
            "weight_decay",
            "max_grad_norm",
            "eval_examples",
            "test_examples",
            "dataloader_num_workers",
            "seed",
            "data_seed",
        ):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} must be >= 0, not {getattr(self, name)}")
        if not 0 < self.learning_rate < float("inf"):
            raise UserError(f"learning_rate must be positive and finite, not {self.learning_rate}")
        if self.max_steps == 0 and not self.num_train_epochs > 0:
            raise UserError("nothing to train: give max_steps or num_train_epochs above 0")
        if self.bf16 and self.fp16:
            raise UserError("bf16 and fp16 exclude each other; bf16 needs no gradient scaling")
        if not 0 < self.curriculum_threshold <= 1:
            raise UserError(f"curriculum_threshold must be above 0 and at most 1, not {self.curriculum_threshold}")
        if self.seed >= 2**32:
            raise UserError(f"seed must be below 2^32, not {self.seed}")
        if self.wandb and importlib.util.find_spec("wandb") is None:
            raise UserError("wandb: true needs the package wandb; install it with `pip install 'rmaat[wandb]'`")
        if not self.output_dir:
            raise UserError("output_dir must name a folder, not ''")
        if self.resume and self.overwrite:
            raise UserError("resume and overwrite exclude each other: one continues the run, the other deletes it")
        one_of("metric_for_best_model", self.metric_for_best_model, BEST_METRICS)
        one_of("lr_scheduler_type", self.lr_scheduler_type, LR_SCHEDULES)

    def model_settings(self) -> dict[str, Any]:
        """Return the settings of the model, for `RmaatConfig`."""
        return {f.name: getattr(self, f.name) for f in fields(ModelSettings)}

    def to_yaml(self) -> str:
        """Return every setting as YAML that `from_yaml` reads.

        `resume` and `overwrite` are false in it: they are meant for one command, and a file with
        them would delete or demand the run of whoever reads it.
        """
        return yaml.safe_dump({**asdict(self), "resume": False, "overwrite": False}, sort_keys=False)

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
            UserError: for an unknown recipe or model, or a layer that contradicts its own model.
        """
        merged: dict[str, Any] = {}
        for layer in layers:
            merged |= layer
        recipe = merged.get("recipe")
        settings = resolve(*([] if recipe is None else recipe_layers(recipe)), *layers)
        if "output_dir" not in settings:
            name = str(recipe or settings.get("dataset", cls.dataset)).replace("/", "-")
            model = settings.get("model") if "model" in merged else None
            settings["output_dir"] = f"runs/{name}-{model}" if model else f"runs/{name}"
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
    """Return the keys and values of a run config file.

    Raises:
        UserError: if the file cannot be read, is not YAML, or holds an unknown key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the run config '{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 text: {error.reason} at byte {error.start}") from error
    settings = without_retired(parse_settings(text, f"'{path}'"), f"'{path}'")
    for key in settings:
        check_key(str(key), f"'{path}'")
    return settings


def check_key(key: str, where: str) -> None:
    """Raise `UserError`, naming the nearest setting, if `key` is not a setting."""
    known = [f.name for f in fields(RunConfig)]
    if key not in known:
        raise UserError(f"{where} has no setting '{key}'; {did_you_mean(key, known)}")
