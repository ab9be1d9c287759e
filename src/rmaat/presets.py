"""The models by name: presets of settings for RMAAT, its relatives and the baselines.

This module does not import torch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rmaat.attention.registry import ATTENTION, BUILT_IN
from rmaat.errors import UserError
from rmaat.registry import Registry
from rmaat.settings import RETENTION_SCHEDULES


@dataclass(frozen=True)
class Preset:
    """A model, described by settings.

    Attributes:
        summary: a description in one line, with the source.
        fixed: the settings that define the model, with their values.
        ablations: the fixed settings that the user may change, each with its other allowed values,
            or None for any value.
        extra_settings: settings that this model has and most others lack. They are neither fixed
            nor settings of its attention.
        lighter: changes to try, in this order, if the model has too many parameters to be matched
            by the width of its feed-forward part.
    """

    summary: str
    fixed: Mapping[str, Any]
    ablations: Mapping[str, tuple[Any, ...] | None] = field(default_factory=dict)
    extra_settings: tuple[str, ...] = ()
    lighter: tuple[Mapping[str, Any], ...] = ()

    @property
    def specific_settings(self) -> tuple[str, ...]:
        """The settings that this model has and most others lack, without the fixed ones."""
        owned = ATTENTION[self.fixed["attention_type"]].setting_names
        return (*(name for name in owned if name not in self.fixed), *self.extra_settings)

    def allows(self, name: str, value: Any) -> bool:
        """Return True if the setting may have the value in this model."""
        if name not in self.fixed or self.fixed[name] == value:
            return True
        if name not in self.ablations:
            return False
        allowed = self.ablations[name]
        return allowed is None or value in allowed


_NO_RECURRENCE: Mapping[str, Any] = {
    "num_segments": 1,
    "num_memory_tokens": 0,
    "memory_replay_backprop": False,
    "astro_mem": False,
    "truncated_segments": None,
    "retention_form": "scale",
    "memory_layout": "front",
    "associative_memory": False,
}
"""The settings of a model without recurrence: one segment, no memory."""


def _recurrent(attention_type: str, *, replay: bool, associative: bool = False) -> Mapping[str, Any]:
    return {
        "attention_type": attention_type,
        "memory_replay_backprop": replay,
        "astro_mem": False,
        "truncated_segments": None,
        "retention_form": "scale",
        "associative_memory": associative,
    }


def _no_recurrence(attention_type: str, **more: Any) -> Mapping[str, Any]:
    return {**_NO_RECURRENCE, "attention_type": attention_type, **more}


_RMAAT: Mapping[str, Any] = {
    "attention_type": "astro",
    "memory_replay_backprop": True,
    "truncated_segments": None,
    "astro_mem": True,
    "retention_schedule": "ltp",
    "retention_form": "scale",
    "calcium_exponent": 0.25,
    "hebbian_astro": True,
    "hebbian_sigmoid": False,
    "presynaptic_plasticity": True,
    "positional_encoding": True,
    "memory_layout": "front",
    "associative_memory": False,
}

_ABLATIONS: Mapping[str, tuple[Any, ...] | None] = {
    **{name: None for name in _RMAAT if name != "hebbian_sigmoid"},
    "attention_type": ("softmax",),
    "retention_schedule": RETENTION_SCHEDULES,
}

MODELS: Registry[Preset] = Registry(
    "model",
    {
        "transformer": Preset(
            "softmax attention over the whole sequence (arXiv 1706.03762)", _no_recurrence("softmax")
        ),
        "nystromformer": Preset(
            "softmax attention through landmarks (arXiv 2102.03902)",
            _no_recurrence("nystromformer"),
        ),
        "luna": Preset(
            "attention packed into 256 positions and unpacked (arXiv 2106.01540)",
            _no_recurrence("luna", num_memory_tokens=256),
        ),
        "linear_transformer": Preset("linear attention, elu + 1 (arXiv 2006.16236)", _no_recurrence("linear")),
        "linformer": Preset(
            "softmax attention to learned sums over positions (arXiv 2006.04768)",
            _no_recurrence("linformer"),
            lighter=tuple({"linformer_size": size} for size in (32, 16, 8, 4)),
        ),
        "performer": Preset(
            "softmax attention by positive random features (arXiv 2009.14794)",
            _no_recurrence("performer"),
        ),
        "astromorphic_transformer": Preset(
            "astromorphic attention with a sigmoid on H, no memory (arXiv 2312.10925)",
            _no_recurrence("astro", hebbian_sigmoid=True, hebbian_astro=True, presynaptic_plasticity=True),
            lighter=tuple({"basis_stride": stride} for stride in (2, 4, 8, 16)),
        ),
        "rmt": Preset(
            "softmax attention in segments with memory (arXiv 2207.06881)", _recurrent("softmax", replay=False)
        ),
        "rlt": Preset(
            "linear attention in segments with memory (arXiv 2601.00426)", _recurrent("linear", replay=False)
        ),
        "rmt_replay": Preset("rmt, trained by replaying segments", _recurrent("softmax", replay=True)),
        "rlt_replay": Preset("rlt, trained by replaying segments", _recurrent("linear", replay=True)),
        "armt": Preset(
            "rmt with an associative memory in each layer (arXiv 2407.04841)",
            _recurrent("softmax", replay=False, associative=True),
            extra_settings=("associative_size",),
        ),
        "armt_replay": Preset(
            "armt, trained by replaying segments",
            _recurrent("softmax", replay=True, associative=True),
            extra_settings=("associative_size",),
        ),
        "rmaat": Preset(
            "astromorphic attention in segments, memory with retention, replay (arXiv 2601.00426)",
            _RMAAT,
            ablations=_ABLATIONS,
            extra_settings=("macro_model", "retention_constant"),
        ),
        "rmaat_long": Preset(
            "rmaat for long documents, with an associative memory; memory tokens restart in each segment",
            {
                **_RMAAT,
                "retention_schedule": "constant",
                "retention_constant": 0.0,
                "retention_form": "interpolate",
                "associative_memory": True,
                "norm_first": False,
            },
            ablations={**_ABLATIONS, "norm_first": None, "retention_constant": None},
            extra_settings=("macro_model", "associative_size", "associative_writers"),
            lighter=tuple({"associative_size": size} for size in (32, 16, 8)),
        ),
        "vla": Preset("linear attention by recursive least squares (arXiv 2605.11196)", _no_recurrence("vla")),
        "s4d": Preset("diagonal state space in both directions (arXiv 2206.11893)", _no_recurrence("s4d")),
    },
)
"""All models: those of the paper's tables in their order, then those that reviewers requested."""


OVERRIDES: Mapping[str, Mapping[str, Any]] = {
    "num_train_epochs": {"max_steps": 0},
    "intermediate_size": {"match_parameters": None},
    "fp16": {"bf16": False},
    "bf16": {"fp16": False},
    "resume": {"overwrite": False},
    "overwrite": {"resume": False},
    "retention_schedule": {"astro_mem": True},
}
"""Settings that have no effect beside certain others.

If a later layer sets one of them, the others are set to the values given here.
"""


def resolve(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge layers of settings, completed by those that the named model fixes.

    A setting of a later layer replaces that of an earlier one. A model named in a later layer
    replaces the earlier layers' model with all its settings. A setting that an earlier layer's
    model does not allow replaces the model's own, and the result has no model name.

    Args:
        layers: lowest first, without defaults; `model` may be missing or None.

    Returns:
        The settings of all layers, with `model` if a layer has it.

    Raises:
        UserError: for an unknown model, or naming all settings of one layer that contradict the
            model of that layer and are not among its ablations.
    """
    settings: dict[str, Any] = {}
    for layer in layers:
        below = settings.get("model")
        name = layer.get("model", below)
        # A new model starts without the settings of the model below it.
        if name != below:
            settings = _without_model(settings, name)
        if name is not None and "model" in layer:
            _check_model(name, layer)
        # Later entries win: the layer's own settings, then the model's, then the overrides.
        fixed = {} if name in (None, below) else MODELS[name].fixed
        changes = {**_overridden(settings, layer), **fixed, **layer}
        if name is not None and not all(MODELS[name].allows(*item) for item in changes.items()):
            # The result is no longer the named model.
            changes["model"] = None
        settings |= changes
    return settings


def _overridden(settings: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return new values for the settings below a layer that would cancel settings of the layer."""
    active = [OVERRIDES[name] for name in OVERRIDES if layer.get(name) not in (None, False)]
    return {k: v for others in active for k, v in others.items() if k in settings}


def _without_model(settings: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """Return the settings without those that belong to their model or attention but not to `model`."""
    below = settings.get("model")
    specific = {name for attention in BUILT_IN.values() for name in attention.switches}
    if below is not None:
        preset = MODELS[below]
        specific |= {*preset.fixed, *preset.specific_settings}
    shared = () if model is None else MODELS[model].specific_settings
    return {k: v for k, v in settings.items() if k not in specific or k in shared}


def _check_model(name: str, layer: Mapping[str, Any]) -> None:
    preset = MODELS[name]
    contradicting = [setting for setting, value in layer.items() if not preset.allows(setting, value)]
    if contradicting:
        values = _enumeration(f"{setting} {yaml_word(layer[setting])}" for setting in contradicting)
        fixed = _enumeration(
            f"{setting} {yaml_word(preset.fixed[setting])}{_allowed_ablations(preset, setting)}"
            for setting in contradicting
        )
        raise UserError(
            f"model '{name}' fixes {fixed}, but it is combined with {values}; "
            f"remove {_enumeration(contradicting)}, or remove model"
        )


def _allowed_ablations(preset: Preset, setting: str) -> str:
    allowed = preset.ablations.get(setting) or ()
    return f" (or, as an ablation, {', '.join(map(yaml_word, allowed))})" if allowed else ""


def _enumeration(items: Iterable[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last


def yaml_word(value: Any) -> str:
    """Return a setting's value as a run config holds it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
