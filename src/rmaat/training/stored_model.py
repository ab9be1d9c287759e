"""The config and weights of a model stored in a folder, and a run that begins with them."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from rmaat.errors import UserError
from rmaat.models import RmaatConfig
from rmaat.settings import SAME_RESULTS, ModelSettings
from rmaat.training import run_folder
from rmaat.training.checkpoints import SEAL, checkpoint_damage, first_damage

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def read_config(folder: Path) -> RmaatConfig:
    """Return the config of the model in a folder.

    Raises:
        UserError: if it is damaged or belongs to another type of model.
    """
    try:
        stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{folder / CONFIG}' is not JSON: {error}") from error
    kind = stored.get("model_type") if isinstance(stored, dict) else None
    if kind != RmaatConfig.model_type:
        raise UserError(f"'{folder}' holds a model of type '{kind}', not '{RmaatConfig.model_type}'")
    return RmaatConfig.from_pretrained(folder)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name; raise `UserError` if it is damaged."""
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise UserError(f"'{path}' is damaged or not a safetensors file: {error}") from error
    # Earlier versions stored pooled_norm without pooled_positions; 0 has no effect.
    if "pooled_norm.running_mean" in weights:
        weights.setdefault("pooled_positions", torch.zeros(()))
    return weights


def first_mismatch(weights: Mapping[str, Tensor], model: PreTrainedModel) -> tuple[str, str, str] | None:
    """Return the first tensor that differs in shape between stored weights and a model.

    Returns:
        Its name, its stored shape and its shape in the model, "missing" if it is not there; None if
        all shapes are equal.
    """
    state = model.state_dict()
    for name in sorted(weights.keys() | state.keys()):
        stored, expected = (str(tuple(x[name].shape)) if name in x else "missing" for x in (weights, state))
        if stored != expected:
            return name, stored, expected
    return None


def check_finished_run(folder: Path, use: str = "") -> None:
    """Raise `UserError` unless a folder holds a whole model of a finished run.

    A checkpoint is whole if its files are those that were sealed. The folder of a run is whole if
    its files are those that `metrics.json` records. A folder that no run wrote only needs the files.

    Args:
        folder: the folder.
        use: what needs the model, such as "init_from ", at the beginning of a message.
    """
    is_run = (folder / run_folder.RUN_CONFIG).is_file()
    for name in (CONFIG, WEIGHTS, *((run_folder.METRICS,) if is_run else ())):
        if not (folder / name).is_file():
            raise UserError(
                f"{use}'{folder}' is not a finished run: it has no {name}; finish that run with --resume, "
                "or give the output_dir of another"
            )
    damage = None
    if is_run:
        damage = _damage_of_run(folder)
    elif (folder / SEAL).is_file():
        damage = checkpoint_damage(folder)
    if damage is not None:
        raise UserError(f"{use}'{folder}' is damaged: {damage}")


def _damage_of_run(folder: Path) -> str | None:
    """Return what is wrong with the model of a finished run, or None.

    Earlier versions did not record their files.
    """
    try:
        return first_damage(folder, json.loads((folder / run_folder.METRICS).read_bytes()).get("files", {}))
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"{run_folder.METRICS} is not readable"


HEADS = (
    *("classifier.", "classifier_hidden.", "ngrams.", "pooled_norm.", "pooled_positions"),
    "rmaat.encoder.masked_head.",
)
"""Prefixes of the tensors that only one of two models may have, if one was pre-trained."""


def load_initial_weights(model: PreTrainedModel, folder: Path) -> None:
    """Load the weights of a finished run into the model.

    If that run has other labels, the last layer of the classifier keeps its initial weights. So do
    the heads that the other model lacks: that of masked positions, and a whole classifier if the
    run was pre-trained.

    Raises:
        UserError: if there is no such run, or its weights have other shapes. The message names the
            settings that differ.
    """
    check_finished_run(folder, "init_from ")
    stored_config, config = read_config(folder), model.config
    weights = read_weights(folder / WEIGHTS)
    state = model.state_dict()
    # Two classifiers must have the same parts, but for the head of masked positions.
    both_classify = all("classifier.weight" in names for names in (weights, state))
    for prefix in HEADS[-1:] if both_classify else HEADS:
        stored_head, initial_head = ({k: x[k] for k in x if k.startswith(prefix)} for x in (weights, state))
        # If only one of the two models has the head, keep the new model's: initial weights or none.
        if bool(stored_head) != bool(initial_head):
            weights = {k: x for k, x in weights.items() if k not in stored_head} | initial_head
    if "classifier.weight" in state and stored_config.id2label != config.id2label:
        weights |= {name: tensor for name, tensor in state.items() if name.startswith(("classifier.", "ngrams."))}
    if (mismatch := first_mismatch(weights, model)) is not None:
        name, stored, expected = mismatch
        settings = [f.name for f in fields(ModelSettings) if f.name not in SAME_RESULTS] + ["vocab_size"]
        pairs = [(setting, getattr(stored_config, setting), getattr(config, setting)) for setting in settings]
        differences = ", ".join(f"{setting} ({old} there, {new} here)" for setting, old, new in pairs if old != new)
        reason = f"they differ in {differences}" if differences else f"the weights do not match its own {CONFIG}"
        raise UserError(f"init_from '{folder}': {name} is {stored} there and {expected} here; {reason}")
    model.load_state_dict(weights)
