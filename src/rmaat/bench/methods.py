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
class Package:
    """Another project's package: the module to import, and the requirement for pip."""

    module: str
    requirement: str

    def is_installed(self) -> bool:
        """Return whether it can be imported here."""
        return importlib.util.find_spec(self.module) is not None


@dataclass(frozen=True)
class Method:
    """One way to take a training step.

    Attributes:
        model: one of `rmaat.presets.MODELS`, or of `rmaat.bench.models.PACKAGED` with a package.
        backprop: 'full', 'replay', 'checkpoint' (each segment) or 'checkpoint_layers'.
        summary: one line, for help texts.
        package: the package that the model is from; None for this project's.
        settings: changes to the settings of this project's model.
        first_segment: read the first segment of a sequence and nothing else.
    """

    model: str
    backprop: str
    summary: str = field(compare=False)
    package: Package | None = None
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

    def tokens(self, shape: Shape) -> int:
        """Return how many tokens of one sequence a step reads."""
        return shape.segment_length if self.first_segment else shape.tokens


RMT = Package("recurrent_memory_transformer_pytorch", "recurrent-memory-transformer-pytorch==0.7.0")
MEMFORMER = Package("memformer", "memformer==0.3.1")


def _astro(backprop: str, summary: str, first_segment: bool = False) -> Method:
    # Without retention factors, which would shrink the gradients of early segments.
    settings = {"astro_mem": False}
    summary = f"astromorphic attention{summary}"
    return Method("rmaat", backprop, summary, None, settings, first_segment)


def _packaged(model: str, package: Package, summary: str) -> dict[str, Method]:
    replay = Method(model, "replay", f"{summary}, its memory_replay_backprop", package)
    full = Method(model, "full", f"{summary}, full backpropagation", package)
    return {model: replay, f"{model}_full": full}


COMPARED = {
    "replay": _astro("replay", ", replay (AMRB)"),
    "full": _astro("full", ", full backpropagation"),
    "checkpoint": _astro("checkpoint", ", torch.utils.checkpoint on each segment"),
    "one_segment": _astro("full", " on the first segment alone: the floor", first_segment=True),
    "rmt": Method("rmt", "full", "softmax attention, full backpropagation: the paper's baseline"),
    "rmt_replay": Method("rmt", "replay", "softmax attention, replay"),
    "transformer": Method("transformer", "full", "softmax attention over the whole sequence"),
    "transformer_checkpoint": Method(
        "transformer", "checkpoint_layers", "the same, torch.utils.checkpoint on each layer"
    ),
    **_packaged("recurrent_memory_transformer_pytorch", RMT, "that package as it is, no dropout"),
    **_packaged(
        "recurrent_memory_transformer_pytorch_plain",
        RMT,
        "the same without XL memories and residual streams",
    ),
    **_packaged("memformer", MEMFORMER, "that package, no dropout"),
}
"""The methods that run by default, in the order of tables and figures."""


def _of_model(name: str) -> Method:
    preset = MODELS[name]
    backprop = "replay" if preset.fixed["memory_replay_backprop"] else "full"
    return Method(name, backprop, preset.summary)


METHODS: Registry[Method] = Registry(
    "method",
    {**COMPARED, **{name: _of_model(name) for name in MODELS.names() if name not in COMPARED}},
)
"""Those, and the other models of `rmaat list models` by their names."""


def chosen(names: list[str] | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the methods to run, and for each one left out the reason.

    Args:
        names: those asked for; None means all of `COMPARED` whose packages are installed.

    Raises:
        UserError: for an unknown name, one given twice, or one whose package is asked for and not
            installed.
    """
    if names is not None and len(set(names)) < len(names):
        raise UserError(f"--methods names one twice: {' '.join(names)}")
    run, absent = [], {}
    for name in COMPARED if names is None else names:
        package = METHODS[name].package
        if package is None or package.is_installed():
            run.append(name)
            continue
        absent[name] = f"package not installed: pip install '{package.requirement}'"
        if names is not None:
            raise UserError(f"method '{name}': {absent[name]}")
    if not run:
        raise UserError("--methods names no method")
    return tuple(run), absent
