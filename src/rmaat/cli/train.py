"""Train a model on a task.

Settings come from a recipe, then a YAML file, then --key value. A later source overrides an
earlier one.

Sources of settings: [P] the RMAAT paper (arXiv 2601.00426), [A] its astromorphic predecessor (arXiv
2312.10925), [C] this project's choice.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from rmaat.cli.parser import Parser
from rmaat.errors import UserError
from rmaat.machine.processes import end_with_parent
from rmaat.presets import resolve
from rmaat.recipes import recipe_layers
from rmaat.settings import ModelSettings
from rmaat.tasks import data_folder, task_of
from rmaat.tasks.options import TaskOptions
from rmaat.training.config import RunConfig
from rmaat.training.effects import check_effects

NEAR_A_GUESS = 0.97
"""Share of the loss of a guess above which the probabilities say nothing."""


def add_arguments(parser: Parser) -> None:
    """Declare the flags of `rmaat train`: each field of `RunConfig`, with its type and help."""
    parser.add_argument(
        "--config",
        type=Path | None,
        help="YAML file of settings, such as a run's run.yaml",
    )
    parser.add_argument(
        "--print_config",
        type=bool,
        default=False,
        help="check the settings and print them in the form of run.yaml, without training",
    )
    parser.add_class_arguments(RunConfig)
    parser.show_sections(sections())
    # A preset may change defaults, so it must know which settings the user has set.
    parser.leave_out_defaults()


MAIN = (
    "dataset",
    "max_seq_len",
    "num_segments",
    "num_memory_tokens",
    "attention_type",
    "memory_replay_backprop",
    "astro_mem",
    "wandb",
    "wandb_run_name",
)
"""The parameters that RMAAT's README names."""

OUTPUT = ("output_dir", "overwrite", "resume", "save_total_limit", "logging_steps")


def sections() -> dict[str, list[str]]:
    """Return the headings of the help with their settings; each setting occurs once."""
    data = [field.name for field in fields(TaskOptions)]
    model = [field.name for field in fields(ModelSettings)]
    rest = [field.name for field in fields(RunConfig) if field.name not in (*data, *model, *OUTPUT)]
    first = ("recipe", "model", "match_parameters")
    by_title = {
        "main settings": MAIN,
        "model": (*first[1:], *model),
        "data": ("data_dir", "data_seed", *data),
        "training": [name for name in rest if name not in (*first, "data_dir", "data_seed")],
        "output": OUTPUT,
    }
    return {
        title: [name for name in names if title == "main settings" or name not in MAIN]
        for title, names in by_title.items()
    }


def run(arguments: Namespace, *, pretrains: bool = False) -> None:
    """Train and print the results and their files, or print the settings for --print_config.

    Args:
        arguments: the flags.
        pretrains: learn no labels: masked positions, unless the settings name another objective.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # A torchrun that is killed outright cannot end its processes. They would train on, or wait
        # for each other, and keep the folder locked.
        end_with_parent(os.getppid())
    names = [field.name for field in fields(RunConfig)]
    flags = {name: arguments[name] for name in names if name in arguments}
    settings = arguments.get("config_settings") or {}
    config = RunConfig.resolved(settings, flags)
    if pretrains and config.objective == "labels":
        if "objective" in flags:
            raise UserError("rmaat pretrain learns no labels; leave out --objective labels, or use `rmaat train`")
        config = RunConfig.resolved(settings, {**flags, "objective": "masked"})
    check_effects(flags, config, "--")
    if "recipe" in flags and all(name in settings for name in names):
        raise UserError(f"--recipe has no effect: '{arguments.config}' holds every setting")
    if "model" not in flags and config.model is None:
        _report_dropped_model(config, settings)
    # Before the imports below, which take seconds.
    config.check()
    task = task_of(config.dataset, TaskOptions.of(config))
    if "train_file" in task.option_names and not arguments.get("print_config"):
        task.sources(data_folder(config.data_dir))
    from rmaat.cli.progress import count_bar
    from rmaat.tasks.base import no_bar
    from rmaat.training.checkpoints import has_checkpoint
    from rmaat.training.run import is_first_process, prepare_data, train
    from rmaat.training.run_folder import FIGURES, METRICS

    if arguments.get("print_config"):
        print(prepare_data(config).run.to_yaml(), end="")
        return
    try:
        result = train(config, count_bar if is_first_process() else no_bar)
    except KeyboardInterrupt:
        # A finished run in the folder is one that this command has not begun to overwrite.
        folder = Path(config.output_dir)
        begun = not (folder / METRICS).exists()
        raise KeyboardInterrupt(*["continue with --resume"] * (begun and has_checkpoint(folder))) from None
    if not is_first_process():
        return
    metrics, folder = result.metrics, result.output_dir
    print()
    if config.objective != "labels":
        print(f"{config.objective + ' loss':<25}{metrics['eval_loss']:7.4f}   (validation)")
        if config.objective == "causal":
            print(f"let it write             rmaat generate --model {folder} 'PROMPT'")
        else:
            print(f"fine-tune it             rmaat train --init_from {folder} ...")
    else:
        _print_test(metrics)
    for name in FIGURES:
        if (folder / name).exists():
            print(f"{Path(name).stem.replace('_', ' '):<25}{folder / name}")
    print(f"metrics                  {folder / 'metrics.json'}")


def _print_test(metrics: Mapping[str, Any]) -> None:
    from rmaat.training.problems import PROBLEMS

    tested, available = metrics["test_examples"], metrics["data"]["test"]["examples"]
    examples = f"{tested} examples" if tested == available else f"{tested} of {available} examples"
    (main, score), *rows = PROBLEMS[metrics["problem_type"]].rows(metrics)
    for name, value in ((main, f"{score}   ({examples})"), *rows):
        print(f"{name:<25}{value}")
    if metrics["calibration"] is not None:
        print("\n".join(calibration_lines(metrics)))


def calibration_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Return temperatures and threshold of a calibrated run, and what its user must know about them, in lines."""
    record, loss = metrics["calibration"], metrics["eval_loss"]
    before, examples = record["uncalibrated_eval_loss"], metrics["data"]["validation"]["examples"]
    (_, shortest), (_, longest) = record["temperatures"][0], record["temperatures"][-1]
    short = f"{shortest:.4f} for the shortest texts; " if len(record["temperatures"]) > 1 else ""
    losses = f"validation loss {loss:.4f} instead of {before:.4f}"
    lines = [f"temperature              {longest:7.4f}   ({short}{losses})"]
    if record["label_threshold"] is not None:
        lines.append(f"threshold                {record['label_threshold']:7.4f}   (an answer has the labels above it)")
    if loss > NEAR_A_GUESS * record["guess_loss"]:
        lines.append("the probabilities are near those of a guess: the model has learned too little")
    elif loss > before:
        lines.append(f"probabilities softened: only {examples:,} validation examples")
    return lines


def _report_dropped_model(config: RunConfig, settings: Mapping[str, Any]) -> None:
    recipe = {} if config.recipe is None else resolve(*recipe_layers(config.recipe))
    if name := {**recipe, **settings}.get("model"):
        print(
            f"note: a flag changes a setting that model '{name}' fixes; the run has no model name",
            file=sys.stderr,
        )
