"""Calls of a module with other parameters, so that replay can use those of the forward pass."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from rmaat.backprop import Tensors
from rmaat.errors import UserError


class CallLock:
    """A reentrant lock for the threads that call one module.

    Copying or unpickling a lock gives a new one, so that a model can be copied and stored.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return (CallLock, ())


class FunctionalModule:
    """Call a module with other parameters, like `torch.func.functional_call` but cheaper.

    Args:
        module: the module. It must have the same parts and parameter names at every call.
        lock: held during a call, because the module holds the other parameters meanwhile. Hold it
            to read the module's own parameters.

    Attributes:
        parameters: the module's parameters at the time of construction. A parameter that several
            parts share is listed once.
    """

    def __init__(self, module: nn.Module, lock: CallLock) -> None:
        self._module = module
        self._lock = lock
        self._entries = _parameter_entries(module)
        # Parts that share a parameter have one index.
        indices: dict[int, int] = {}
        parameters: list[Tensor] = []
        self._indices: list[int] = []
        for entries, name in self._entries:
            tensor = entries[name]
            index = indices.setdefault(id(tensor), len(parameters))
            if index == len(parameters):
                parameters.append(tensor)
            self._indices.append(index)
        self.parameters = tuple(parameters)

    def __call__(self, parameters: Tensors, *args: Any) -> Any:
        """Return the module's result with `parameters` in the place of `self.parameters`.

        Raises:
            UserError: if the module has other parts or parameters than at construction.
        """
        with self._lock, self._swapped(parameters):
            return self._module(*args)

    @contextmanager
    def _swapped(self, parameters: Tensors) -> Iterator[None]:
        self._check_unchanged()
        # Restore these rather than `self.parameters`: in a backward pass the module may hold other
        # parameters than in the forward pass.
        before = [entries[name] for entries, name in self._entries]
        try:
            for (entries, name), index in zip(self._entries, self._indices, strict=True):
                entries[name] = parameters[index]
            yield
        finally:
            for (entries, name), tensor in zip(self._entries, before, strict=True):
                entries[name] = tensor

    def _check_unchanged(self) -> None:
        now = _parameter_entries(self._module)
        same = len(now) == len(self._entries) and all(
            entries is entries_now and name == name_now
            for (entries, name), (entries_now, name_now) in zip(self._entries, now, strict=True)
        )
        if not same:
            raise UserError(
                "a layer was replaced, or gained or lost a parameter, between forward and backward "
                "pass, so its segments cannot be computed again; change the model after backward, "
                "or before forward"
            )


@contextmanager
def check_repeatable(module: nn.Module) -> Iterator[None]:
    """Raise `UserError` if calls of the module inside the context would not repeat their results.

    Two things prevent it: a layer that writes a buffer, as batch and spectral normalisation do in
    training, and `torch.nn.utils.parametrize.cached`, which keeps weights without gradients.
    """
    if parametrize._cache_enabled:
        raise UserError(
            "torch.nn.utils.parametrize.cached() keeps weights that were computed without "
            "gradients, and replay needs them with; call the model outside it, or set "
            "memory_replay_backprop: false"
        )
    # Autograd counts the writes to a tensor in `_version`.
    versions = {name: (buffer, buffer._version) for name, buffer in module.named_buffers()}
    yield
    for name, (buffer, version) in versions.items():
        if buffer._version != version:
            raise UserError(
                f"the segment step writes the buffer '{name}', so replay would compute a "
                "segment again with another value; put that layer into eval mode, or set "
                "memory_replay_backprop: false"
            )


def _parameter_entries(module: nn.Module) -> list[tuple[dict[str, Any], str]]:
    """Return, for each parameter of a module's parts, the dict that holds it and its key there."""
    return [
        (part._parameters, name)
        for part in module.modules()
        for name, tensor in part._parameters.items()
        if tensor is not None
    ]
