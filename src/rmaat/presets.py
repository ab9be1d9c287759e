"""The models by name: presets of settings for RMAAT, its relatives and the baselines. Knows nothing of torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rmaat.attention.registry import ATTENTION, BUILT_IN
from rmaat.errors import UserError
from rmaat.registry import Registry
from rmaat.settings import RETENTION_SCHEDULES


@dataclass(frozen=True)
class Preset:
    """A model as settings.

    Attributes:
        summary: one line, with the source.
        fixed: settings that make the model what it is, with their values.
        ablations: fixed settings that may be given otherwise, each with the values allowed, or None for all.
        extra_settings: settings, not fixed and not of its attention, that this model has and most others
            do without.
        lighter: changes to try, in this order, where the model is too large to be matched by its feed-forward width.
    """

    summary: str
    fixed: Mapping[str, Any]
    ablations: Mapping[str, tuple[Any, ...] | None] = field(default_factory=dict)
    extra_settings: tuple[str, ...] = ()
    lighter: tuple[Mapping[str, Any], ...] = ()

    @property
    def specific_settings(self) -> tuple[str, ...]:
        """Settings, not fixed, that this model has and most others do without."""
        owned = ATTENTION[self.fixed["attention_type"]].setting_names
        return (*(name for name in owned if name not in self.fixed), *self.extra_settings)

    def allows(self, name: str, value: Any) -> bool:
        """Whether the setting may have the value."""
        if name not in self.fixed or self.fixed[name] == value:
            return True
        if name not in self.ablations:
            return False
        allowed = self.ablations[name]
        return allowed is None or value in allowed


_WHOLE: Mapping[str, Any] = {
    "num_segments": 1,
    "num_memory_tokens": 0,
    "memory_replay_backprop": False,
    "astro_mem": False,
    "truncated_segments": None,
    "retention_form": "scale",
    "memory_layout": "front",
    "associative_memory": False,
}
"""One segment, without memory: a model without recurrence."""


def _recurrent(attention_type: str, *, replay: bool, associative: bool = False) -> Mapping[str, Any]:
    return {
        "attention_type": attention_type,
        "memory_replay_backprop": replay,
        "astro_mem": False,
        "truncated_segments": None,
        "retention_form": "scale",
        "associative_memory": associative,
    }


def _whole(attention_type: str, **more: Any) -> Mapping[str, Any]:
    return {**_WHOLE, "attention_type": attention_type, **more}


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
        "transformer": Preset("softmax attention over the whole sequence (arXiv 1706.03762)", _whole("softmax")),
        "nystromformer": Preset(
            "softmax attention through landmarks (arXiv 2102.03902)",
            _whole("nystromformer"),
        ),
        "luna": Preset(
            "attention packed into 256 positions and unpacked (arXiv 2106.01540)", _whole("luna", num_memory_tokens=256)
        ),
        "linear_transformer": Preset("linear attention, elu + 1 (arXiv 2006.16236)", _whole("linear")),
        "linformer": Preset(
            "softmax attention to learned sums over positions (arXiv 2006.04768)",
            _whole("linformer"),
            lighter=tuple({"linformer_size": size} for size in (32, 16, 8, 4)),
        ),
        "performer": Preset(
            "softmax attention by positive random features (arXiv 2009.14794)",
            _whole("performer"),
        ),
        "astromorphic_transformer": Preset(
            "astromorphic attention with a sigmoid on H, no memory (arXiv 2312.10925)",
            _whole("astro", hebbian_sigmoid=True, hebbian_astro=True, presynaptic_plasticity=True),
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
            "rmaat for long documents: an associative memory carries, the memory tokens begin anew in each segment",
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
        "vla": Preset("linear attention by recursive least squares (arXiv 2605.11196)", _whole("vla")),
        "s4d": Preset("diagonal state space in both directions (arXiv 2206.11893)", _whole("s4d")),
    },
)
"""All models, in the order of the paper's tables, then those that its reviewers asked for."""


REPLACES: Mapping[str, Mapping[str, Any]] = {
    "num_train_epochs": {"max_steps": 0},
    "intermediate_size": {"match_parameters": None},
    "fp16": {"bf16": False},
    "bf16": {"fp16": False},
    "resume": {"overwrite": False},
    "overwrite": {"resume": False},
    "retention_schedule": {"astro_mem": True},
}
"""Settings without effect beside others. In a later layer, they set those others to these values."""


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
        if name != below:
            settings = _without_model(settings, name)
        if name is not None and "model" in layer:
            _check_model(name, layer)
        fixed = {} if name in (None, below) else MODELS[name].fixed
        changes = {**_replaced(settings, layer), **fixed, **layer}
        if name is not None and not all(MODELS[name].allows(*item) for item in changes.items()):
            changes["model"] = None
        settings |= changes
    return settings


def _replaced(settings: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings below a layer that would leave settings of the layer without effect."""
    active = [REPLACES[name] for name in REPLACES if layer.get(name) not in (None, False)]
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
        given = _in_words(f"{setting} {yaml_word(layer[setting])}" for setting in contradicting)
        fixed = _in_words(
            f"{setting} {yaml_word(preset.fixed[setting])}{_otherwise(preset, setting)}" for setting in contradicting
        )
        raise UserError(
            f"{given} contradict{'s' if len(contradicting) == 1 else ''} model '{name}', which is {fixed}; "
            f"leave {_in_words(contradicting)} out, or leave out model"
        )


def _otherwise(preset: Preset, setting: str) -> str:
    allowed = preset.ablations.get(setting) or ()
    return f" (or, as an ablation, {', '.join(map(yaml_word, allowed))})" if allowed else ""


def _in_words(items: Iterable[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last


def yaml_word(value: Any) -> str:
    """A setting's value as it is written in a run config."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
