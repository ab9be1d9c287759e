"""The compared methods, by name. Knows nothing of torch until one is built."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rmaat.compare.shapes import Shape
from rmaat.errors import UserError
from rmaat.registry import Registry

if TYPE_CHECKING:
    from rmaat.compare.workload import Workload

Build = Callable[[Shape, str], "Workload"]
"""(shape, device) -> the model and its step."""


@dataclass(frozen=True)
class Package:
    """Another project's package: what to import, and what to ask pip for."""

    module: str
    requirement: str

    def is_installed(self) -> bool:
        """Whether it can be imported here."""
        return importlib.util.find_spec(self.module) is not None


@dataclass(frozen=True)
class Method:
    """One way to take a training step.

    Attributes:
        line: what it is, for tables.
        build: makes model and step.
        reference: the method whose gradients it must have; None where the slopes of its own loss are to tell.
        package: the package that it needs.
        reads: 'segments' one after the other, the 'whole' sequence at once, or its 'first' segment alone.
    """

    line: str
    build: Build
    reference: str | None = None
    package: Package | None = None
    reads: Literal["segments", "whole", "first"] = "segments"


def _own(attention_type: str, backprop: str, first_only: bool = False) -> Build:
    def build(shape: Shape, device: str) -> "Workload":
        from rmaat.compare.own import own

        return own(shape, device, attention_type, backprop, first_only)

    return build


def _transformer(checkpointed: bool) -> Build:
    def build(shape: Shape, device: str) -> "Workload":
        from rmaat.compare.transformer import transformer

        return transformer(shape, device, checkpointed)

    return build


def _recurrent_memory_transformer(replay: bool, plain: bool) -> Build:
    def build(shape: Shape, device: str) -> "Workload":
        from rmaat.compare.peers import recurrent_memory_transformer

        return recurrent_memory_transformer(shape, device, replay, plain)

    return build


def _memformer(replay: bool) -> Build:
    def build(shape: Shape, device: str) -> "Workload":
        from rmaat.compare.peers import memformer

        return memformer(shape, device, replay)

    return build


RMT_PACKAGE = Package("recurrent_memory_transformer_pytorch", "recurrent-memory-transformer-pytorch==0.7.0")
MEMFORMER_PACKAGE = Package("memformer", "memformer==0.3.1")

METHODS: Registry[Method] = Registry(
    "method",
    {
        "replay": Method("astromorphic attention, replay (AMRB)", _own("astro", "replay"), "full"),
        "full": Method("astromorphic attention, full backpropagation", _own("astro", "full")),
        "checkpoint": Method(
            "astromorphic attention, torch.utils.checkpoint on each segment", _own("astro", "checkpoint"), "full"
        ),
        "one_segment": Method(
            "astromorphic attention on the first segment alone: the floor", _own("astro", "full", True), reads="first"
        ),
        "rmt": Method("softmax attention, full backpropagation: the paper's baseline", _own("softmax", "full")),
        "rmt_replay": Method("softmax attention, replay", _own("softmax", "replay"), "rmt"),
        "transformer": Method("softmax attention over the whole sequence", _transformer(False), reads="whole"),
        "transformer_checkpoint": Method(
            "the same, torch.utils.checkpoint on each layer", _transformer(True), "transformer", reads="whole"
        ),
        "recurrent_memory_transformer_pytorch": Method(
            "that package at its defaults, its memory_replay_backprop, no dropout",
            _recurrent_memory_transformer(replay=True, plain=False),
            "recurrent_memory_transformer_pytorch_full",
            RMT_PACKAGE,
        ),
        "recurrent_memory_transformer_pytorch_full": Method(
            "that package at its defaults, full backpropagation, no dropout",
            _recurrent_memory_transformer(replay=False, plain=False),
            package=RMT_PACKAGE,
        ),
        "recurrent_memory_transformer_pytorch_plain": Method(
            "the same without XL memories and residual streams, its memory_replay_backprop",
            _recurrent_memory_transformer(replay=True, plain=True),
            "recurrent_memory_transformer_pytorch_plain_full",
            RMT_PACKAGE,
        ),
        "recurrent_memory_transformer_pytorch_plain_full": Method(
            "the same without XL memories and residual streams, full backpropagation",
            _recurrent_memory_transformer(replay=False, plain=True),
            package=RMT_PACKAGE,
        ),
        "memformer": Method(
            "that package, its memory_replay_backprop, no dropout",
            _memformer(True),
            "memformer_full",
            MEMFORMER_PACKAGE,
        ),
        "memformer_full": Method(
            "that package, full backpropagation, no dropout", _memformer(False), package=MEMFORMER_PACKAGE
        ),
    },
)


def chosen(names: list[str] | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """The methods to run, and why each of the others is left out.

    Args:
        names: those asked for; None means all whose packages are installed.

    Raises:
        UserError: for an unknown name, one given twice, or one whose package is asked for and not installed.
    """
    if names is not None and len(set(names)) < len(names):
        raise UserError(f"--methods names one twice: {' '.join(names)}")
    run, absent = [], {}
    for name in METHODS.names() if names is None else names:
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
