"""The methods by name: a model, and how its gradients are computed. Knows nothing of torch."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rmaat.bench.shape import Shape
from rmaat.errors import UserError
from rmaat.presets import MODELS
from rmaat.registry import Registry


@dataclass(frozen=True)
class Method:
    """One way to take a training step.

    Attributes:
        model: one of `rmaat.presets.MODELS`, or of `rmaat.bench.models.PACKAGED` with a package.
        backprop: 'full', 'replay', 'checkpoint' (each segment) or 'checkpoint_layers'.
        summary: one line, for help texts.
        package: pip's requirement of the package with the model; None for this project's models.
        settings: changes to the settings of this project's model.
        first_segment: read the first segment of a sequence and nothing else.
    """

    model: str
    backprop: str
    summary: str = field(compare=False)
    package: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    first_segment: bool = False

    @property
    def is_recurrent(self) -> bool:
        """Whether the model reads segment after segment, rather than the whole sequence at once."""
        return self.package is not None or MODELS[self.model].fixed.get("num_segments") != 1

    @property
    def reference(self) -> "Method | None":
        """The method whose gradients this one must have; None for full backpropagation itself."""
        return None if self.backprop == "full" else replace(self, backprop="full")

    def is_installed(self) -> bool:
        """Return whether the model's package can be imported here."""
        module = (self.package or "rmaat").partition("==")[0].replace("-", "_")
        return importlib.util.find_spec(module) is not None

    def tokens(self, shape: Shape) -> int:
        """Return how many tokens of one sequence a step reads."""
        return shape.segment_length if self.first_segment else shape.tokens


def _astro(backprop: str, summary: str, first_segment: bool = False) -> Method:
    # Without retention factors, which would shrink the gradients of early segments.
    settings = {"astro_mem": False}
    summary = f"astromorphic attention{summary}"
    return Method("rmaat", backprop, summary, None, settings, first_segment)


def _packaged(model: str, package: str, summary: str) -> dict[str, Method]:
    replay = Method(model, "replay", f"{summary}, its memory_replay_backprop", package)
    full = Method(model, "full", f"{summary}, full backpropagation", package)
    return {model: replay, f"{model}_full": full}


RMT = "recurrent_memory_transformer_pytorch"
RMT_PACKAGE = "recurrent-memory-transformer-pytorch==0.7.0"
LAYERS = "the same, torch.utils.checkpoint on each layer"

COMPARED = {
    "replay": _astro("replay", ", replay (AMRB)"),
    "full": _astro("full", ", full backpropagation"),
    "checkpoint": _astro("checkpoint", ", torch.utils.checkpoint on each segment"),
    "one_segment": _astro("full", " on the first segment alone: the floor", first_segment=True),
    "rmt": Method("rmt", "full", "softmax attention, full backpropagation: the paper's baseline"),
    "rmt_replay": Method("rmt", "replay", "softmax attention, replay"),
    "transformer": Method("transformer", "full", "softmax attention over the whole sequence"),
    "transformer_checkpoint": Method("transformer", "checkpoint_layers", LAYERS),
    **_packaged(RMT, RMT_PACKAGE, "that package as it is, no dropout"),
    **_packaged(f"{RMT}_plain", RMT_PACKAGE, "the same without XL memories and residual streams"),
    **_packaged("memformer", "memformer==0.3.1", "that package, no dropout"),
}
"""The methods that run by default, in the order of tables and figures."""


def _of_model(name: str) -> Method:
    preset = MODELS[name]
    backprop = "replay" if preset.fixed["memory_replay_backprop"] else "full"
    return Method(name, backprop, preset.summary)


OTHERS = {name: _of_model(name) for name in MODELS.names() if name not in COMPARED}
METHODS: Registry[Method] = Registry("method", {**COMPARED, **OTHERS})
"""Those, and the other models of `rmaat list models` by their names."""


def chosen(names: list[str] | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the methods to run, and for each one left out the reason.

    Args:
        names: those asked for; None means all of `COMPARED` whose packages are installed.

    Raises:
        UserError: for an unknown name, one given twice, one whose package is asked for and not
            installed, or none.
    """
    if names is None:
        run = tuple(name for name, method in COMPARED.items() if method.is_installed())
        return run, {name: _install(name) for name in COMPARED if name not in run}
    if len(set(names)) < len(names):
        raise UserError(f"--methods names one twice: {' '.join(names)}")
    for name in names:
        if not METHODS[name].is_installed():
            raise UserError(f"method '{name}': {_install(name)}")
    if not names:
        raise UserError("--methods names no method")
    return tuple(names), {}


def _install(name: str) -> str:
    return f"package not installed: pip install '{METHODS[name].package}'"
