"""A module's parameters as arguments: other tensors stand in for them while it is called."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from rmaat.backprop import Tensors


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
    """Where a module's parameters hang, to call it with others as `torch.func.functional_call` does, at a hundredth of its cost.

    Args:
        module: whose parameters; not to gain or lose any.
        lock: held while others hang there; hold it to find the module's own for certain.

    Attributes:
        tensors: what hangs there now, each once, whatever number of places it hangs in.
    """

    def __init__(self, module: nn.Module, lock: CallLock) -> None:
        self._lock = lock
        self._slots: list[tuple[dict[str, Any], str, int]] = []
        places: dict[int, int] = {}
        tensors: list[Tensor] = []
        for part in module.modules():
            for name, tensor in part._parameters.items():
                if tensor is not None:
                    place = places.setdefault(id(tensor), len(tensors))
                    if place == len(tensors):
                        tensors.append(tensor)
                    self._slots.append((part._parameters, name, place))
        self.tensors = tuple(tensors)

    @contextmanager
    def holding(self, tensors: Tensors) -> Iterator[None]:
        """While open, `tensors` hang in the places of `self.tensors`."""
        if tensors is self.tensors:
            yield
            return
        with self._lock:
            before = [own[name] for own, name, _ in self._slots]
            try:
                for own, name, place in self._slots:
                    own[name] = tensors[place]
                yield
            finally:
                for (own, name, _), tensor in zip(self._slots, before, strict=True):
                    own[name] = tensor
