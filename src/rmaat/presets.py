"""The models by name: presets of settings for RMAAT, its relatives and the baselines.

This module does not import torch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
        **({"associative_rule": "normalised", "associative_writers": "memory"} if associative else {}),
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
    "attention_decay": "none",
    "reading_norm": False,
    "unit_features": False,
    "rotary_positions": False,
    "positional_encoding": True,
    "memory_layout": "front",
    "associative_memory": False,
}

_PLUS: Mapping[str, Any] = {
    "attention_decay": "learned",
    "reading_norm": True,
    "rotary_positions": True,
    "positional_encoding": False,
    "short_conv_size": 5,
}
"""What `rmaat_plus` adds."""

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
        "rmaat_plus": Preset(
            "rmaat with decay, rotations, a norm of the reading and a convolution; beyond the paper",
            {**_RMAAT, **_PLUS},
            ablations={**_ABLATIONS, "short_conv_size": None},
            extra_settings=("macro_model", "retention_constant"),
        ),
        "rmaat_causal": Preset(
            "rmaat_plus for language: each token reads only those before it, and memory has no retention",
            {**_RMAAT, **_PLUS, "causal": True, "retention_schedule": "none"},
            ablations={**_ABLATIONS, "short_conv_size": None},
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
                "associative_rule": "delta",
                "norm_first": False,
            },
            ablations={
                **_ABLATIONS,
                **dict.fromkeys(("norm_first", "retention_constant", "associative_rule")),
            },
            extra_settings=("macro_model", "associative_size", "associative_writers"),
            lighter=tuple({"associative_size": size} for size in (32, 16, 8)),
        ),
        "vla": Preset("linear attention by recursive least squares (arXiv 2605.11196)", _no_recurrence("vla")),
        "s4d": Preset("diagonal state space in both directions (arXiv 2206.11893)", _no_recurrence("s4d")),
    },
)
"""All models: those of the paper's tables in their order, then those that reviewers requested."""


def _set(value: Any) -> bool:
    return value is not None and value is not False


def _equals(expected: Any) -> Callable[[Any], bool]:
    return lambda value: value == expected


OVERRIDES: Sequence[tuple[str, Callable[[Any], bool], Mapping[str, Any]]] = (
    ("num_train_epochs", _set, {"max_steps": 0}),
    ("intermediate_size", _set, {"match_parameters": None}),
    ("fp16", _set, {"bf16": False}),
    ("bf16", _set, {"fp16": False}),
    ("resume", _set, {"overwrite": False}),
    ("overwrite", _set, {"resume": False}),
    ("retention_schedule", _set, {"astro_mem": True}),
    ("memory_replay_backprop", _equals(False), {"replay_budget": None, "replay_buffer": "device"}),
    ("memory_replay_backprop", _equals(True), {"truncated_segments": None}),
    (
        "associative_memory",
        _equals(False),
        {"associative_writers": "memory", "associative_rule": "normalised", "associative_retention": False},
    ),
    ("astro_mem", _equals(False), {"associative_retention": False}),
    ("input_type", _equals("tokens"), {"patch_size": 1}),
    ("input_type", _equals("values"), {"two_towers": False}),
    ("two_towers", _equals(True), {"input_type": "tokens", "patch_size": 1}),
)
"""Settings that exclude certain others: name, test of its value, and the others' values.

If a later layer sets one of them to such a value, the other settings of earlier layers get the
values of this table. A flag therefore resets the file's settings that it excludes. It does not set
those that it needs.
"""


def resolve(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge layers of settings, completed by those that the named model fixes.

    A setting of a later layer replaces that of an earlier one. The last model that is named
    replaces the models of earlier layers with all their settings; named once more, the same model
    keeps them. A setting that the model of an earlier layer does not allow replaces the model's
    value, and the result has no model name.

    Args:
        layers: lowest first, without defaults; `model` may be missing or None.

    Returns:
        The settings of all layers, with `model` if a layer has it.

    Raises:
        UserError: for an unknown model, or naming all settings of one layer that contradict the
            model of that layer and are not among its ablations.
    """
    models = [layer["model"] for layer in layers if "model" in layer]
    model = models[-1] if models else None
    first = _first_layer_of(model, layers)
    settings: dict[str, Any] = {}
    replaced: str | None = None
    for index, layer in enumerate(layers):
        if layer.get("model") is not None:
            _check_model(layer["model"], layer)
        if index < first:
            # Settings of a model that a later layer replaces do not count.
            replaced = layer.get("model", replaced)
            settings |= _without_model(layer, replaced, model)
            continue
        # Later entries win: the layer's own settings, then the model's, then the overrides.
        fixed = MODELS[model].fixed if model is not None and index == first else {}
        named = MODELS[model].fixed if model is not None and "model" in layer else {}
        overridden = {k: v for k, v in _overridden(settings, {**named, **layer}).items() if k not in named}
        settings |= {**overridden, **fixed, **layer}
    # The result is no longer the named model if a layer without a model name changed what it fixes.
    if model is not None and not all(MODELS[model].allows(*item) for item in settings.items()):
        settings["model"] = None
    return settings


def _first_layer_of(model: str | None, layers: Sequence[Mapping[str, Any]]) -> int:
    """Return the index of the layer that names the model and is followed by no other model."""
    first = len(layers) if model is not None else 0
    for index in reversed(range(len(layers))):
        if layers[index].get("model", model) != model:
            break
        if "model" in layers[index]:
            first = index
    return first


def _overridden(settings: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return new values for the settings below a layer that would cancel settings of the layer."""
    active = [others for name, excludes, others in OVERRIDES if name in layer and excludes(layer[name])]
    return {k: v for others in active for k, v in others.items() if k in settings}


def _without_model(layer: Mapping[str, Any], replaced: str | None, model: str | None) -> dict[str, Any]:
    """Return a layer without the settings of the replaced model, except those of `model` as well."""
    specific = {name for attention in BUILT_IN.values() for name in attention.switches}
    if replaced is not None:
        specific |= {*MODELS[replaced].fixed, *MODELS[replaced].specific_settings}
    shared = () if model is None else MODELS[model].specific_settings
    return {k: v for k, v in layer.items() if k not in specific or k in shared}


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
