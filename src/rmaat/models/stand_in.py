"""A module's parameters as arguments: other tensors stand in for them while it is called."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from rmaat.backprop import Tensors
from rmaat.errors import UserError


class CallLock:
    """A reentrant lock between threads that call one module; a copy of its owner has one of its own."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return (CallLock, ())


class ParameterSlots:
    """Where a module's parameters hang, to call it with others as `torch.func.functional_call` does, at a fraction of its cost.

    Args:
        module: whose parameters.
        lock: held while others hang there; hold it to find the module's own for certain.

    Attributes:
        tensors: what hangs there now, each once, whatever number of places it hangs in.
    """

    def __init__(self, module: nn.Module, lock: CallLock) -> None:
        self._module = module
        self._lock = lock
        self._slots = _slots(module)
        places: dict[int, int] = {}
        tensors: list[Tensor] = []
        self._places: list[int] = []
        for own, name in self._slots:
            place = places.setdefault(id(own[name]), len(tensors))
            if place == len(tensors):
                tensors.append(own[name])
            self._places.append(place)
        self.tensors = tuple(tensors)

    @contextmanager
    def holding(self, tensors: Tensors) -> Iterator[None]:
        """While open, `tensors` hang in the places of `self.tensors`; raises `UserError` where the places have changed."""
        if tensors is self.tensors:
            yield
            return
        with self._lock:
            now = _slots(self._module)
            if len(now) != len(self._slots) or any(
                own is not found or name != as_found
                for (own, name), (found, as_found) in zip(self._slots, now, strict=True)
            ):
                raise UserError(
                    "a layer was replaced, or gained or lost a parameter, between forward and backward pass: replay cannot compute "
                    "its segments again; change the model after backward, or before forward"
                )
            before = [own[name] for own, name in self._slots]
            try:
                for (own, name), place in zip(self._slots, self._places, strict=True):
                    own[name] = tensors[place]
                yield
            finally:
                for (own, name), tensor in zip(self._slots, before, strict=True):
                    own[name] = tensor


@contextmanager
def check_replayable(module: nn.Module) -> Iterator[None]:
    """Raise `UserError` where calls of the module, made while this is open, would not come out the same a second time.

    That is where one writes a buffer, as batch and spectral normalisation do in training, or computes weights once for all under
    `torch.nn.utils.parametrize.cached`.
    """
    if parametrize._cache_enabled:
        raise UserError(
            "torch.nn.utils.parametrize.cached() keeps weights that were computed without gradients, and replay needs them with; "
            "call the model outside it, or set memory_replay_backprop: false"
        )
    versions = {name: (buffer, buffer._version) for name, buffer in module.named_buffers()}
    yield
    for name, (buffer, version) in versions.items():
        if buffer._version != version:
            raise UserError(
                f"the segment step writes the buffer '{name}', so that replay would compute a segment again with another value; "
                "put that layer into eval mode, or set memory_replay_backprop: false"
            )


def _slots(module: nn.Module) -> list[tuple[dict[str, Any], str]]:
    """The dicts of parameters of a module and its parts, and their keys."""
    return [
        (part._parameters, name)
        for part in module.modules()
        for name, tensor in part._parameters.items()
        if tensor is not None
    ]
