"""A model in a folder: its config and weights read, held against another's, and taken over by another run."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rmaat.errors import UserError
from rmaat.models import RmaatConfig, RmaatForSequenceClassification
from rmaat.settings import SAME_RESULTS, ModelSettings

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def read_config(folder: Path) -> RmaatConfig:
    """The config of the model in a folder; raises `UserError` where it is damaged or of another kind of model."""
    try:
        stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"'{folder / CONFIG}' is not JSON: {error}") from error
    kind = stored.get("model_type") if isinstance(stored, dict) else None
    if kind != RmaatConfig.model_type:
        raise UserError(f"'{folder}' holds a model of type '{kind}', not '{RmaatConfig.model_type}'")
    return RmaatConfig.from_pretrained(folder)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name; raises `UserError` where it is damaged."""
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise UserError(f"'{path}' is damaged or not a safetensors file: {error}") from error
    # Earlier versions stored pooled_norm without it; 0 has no effect.
    if "pooled_norm.running_mean" in weights:
        weights.setdefault("pooled_positions", torch.zeros(()))
    return weights


def misfit(weights: Mapping[str, Tensor], model: RmaatForSequenceClassification) -> tuple[str, str, str] | None:
    """The first tensor that weights and model do not have in one shape: its name, its shape there and in the model; or None."""
    wanted = model.state_dict()
    for name in sorted(weights.keys() | wanted.keys()):
        there, here = (str(tuple(of[name].shape)) if name in of else "missing" for of in (weights, wanted))
        if there != here:
            return name, there, here
    return None


def check_finished(folder: Path) -> None:
    """Raise `UserError` unless the folder of an `init_from` holds a model."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(
                f"init_from '{folder}' is not a finished run: it has no {name}; train that one first, give the output_dir of "
                "another, or null to begin anew"
            )


def begin_from(model: RmaatForSequenceClassification, folder: Path) -> None:
    """Give the model the weights of a finished run; where that one's labels are others, all but the classifier's last layer.

    Raises:
        UserError: where there is no such run or its weights have other shapes, naming the settings that differ.
    """
    check_finished(folder)
    theirs, ours = read_config(folder), model.config
    weights = read_weights(folder / WEIGHTS)
    if theirs.id2label != ours.id2label:
        weights |= {f"classifier.{name}": tensor for name, tensor in model.classifier.state_dict().items()}
    if (found := misfit(weights, model)) is not None:
        name, there, here = found
        settings = [f.name for f in fields(ModelSettings) if f.name not in SAME_RESULTS] + ["vocab_size"]
        pairs = [(setting, getattr(theirs, setting), getattr(ours, setting)) for setting in settings]
        differ = ", ".join(f"{setting} ({one} there, {other} here)" for setting, one, other in pairs if one != other)
        why = f"they differ in {differ}" if differ else f"the file is not of the model in its own {CONFIG}"
        raise UserError(f"init_from '{folder}': {name} is {there} there and {here} here; {why}")
    model.load_state_dict(weights)
