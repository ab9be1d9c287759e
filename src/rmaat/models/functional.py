"""Calls of a module with other parameters than its own."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.func import functional_call
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import parametrize

from rmaat.backprop import Tensors
from rmaat.errors import UserError


class CallLock:
    """A reentrant lock for the threads that call one module. A copy of it is a new lock."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return (CallLock, ())


class FunctionalModule:
    """Call a module with other parameters, by `torch.func.functional_call`.

    Args:
        module: the module. It must have the same parts and parameter names at every call.
        lock: held during a call, because the module holds the other parameters meanwhile. Hold it
            to read the module's own parameters.

    Attributes:
        parameters: the module's parameters at the time of construction. A parameter that several
            parts share is listed for each of them.
    """

    def __init__(self, module: nn.Module, lock: CallLock) -> None:
        self._module = module
        self._lock = lock
        self._parts = _parts(module)
        named = dict(module.named_parameters(remove_duplicate=False))
        self._names = tuple(named)
        self.parameters = tuple(named.values())

    def __call__(self, parameters: Tensors, *args: Any) -> Any:
        """Return the module's result with `parameters` in the place of `self.parameters`.

        Raises:
            UserError: if the module has other parts or parameters than at construction.
        """
        with self._lock:
            names = tuple(name for name, _ in self._module.named_parameters(remove_duplicate=False))
            if names != self._names or _parts(self._module) != self._parts:
                raise UserError(
                    "a layer was replaced, or gained or lost a parameter, between forward and "
                    "backward pass, so its segments cannot be computed again; change the model "
                    "after backward, or before forward"
                )
            # Shared parameters are listed under each name, so nothing has to be tied again.
            named = dict(zip(names, parameters, strict=True))
            return functional_call(self._module, named, args, tie_weights=False)


@contextmanager
def check_repeatable(module: nn.Module) -> Iterator[None]:
    """Raise `UserError` if calls of the module inside the context would not repeat their results.

    They would not if a dropout layer was added, if one writes a buffer, as batch and spectral normalisation do in training, or if
    `torch.nn.utils.parametrize.cached` keeps weights that were computed without gradients.
    """
    if parametrize._cache_enabled:
        raise UserError(
            "torch.nn.utils.parametrize.cached() keeps weights that were computed without "
            "gradients, and replay needs them with; call the model outside it, or set "
            "memory_replay_backprop: false"
        )
    for name, part in module.named_modules():
        if isinstance(part, _DropoutNd) and part.training and part.p > 0:
            raise UserError(
                f"the layer '{name}' draws random numbers, so replay would compute a segment again with "
                "others; set its dropout (lora_dropout in peft) to 0, or memory_replay_backprop: false"
            )
    versions = {name: (buffer, buffer._version) for name, buffer in module.named_buffers()}
    yield
    for name, (buffer, version) in versions.items():
        if buffer._version != version:
            raise UserError(
                f"the segment step writes the buffer '{name}', so replay would compute a "
                "segment again with another value; put that layer into eval mode, or set "
                "memory_replay_backprop: false"
            )


def _parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the module and all modules inside, which compare equal if they are the same ones."""
    return list(module.named_modules(remove_duplicate=False))
