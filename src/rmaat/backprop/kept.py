"""How many segments fit into a budget of memory."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from rmaat.backprop.base import Recurrence, Tensors
from rmaat.machine.memory import Memory, memory_of


def graph_nodes(outputs: Iterable[Tensor]) -> Iterator[torch.autograd.graph.Node]:
    """Every node of the graph behind `outputs`, once."""
    seen = set()
    pending = [out.grad_fn for out in outputs if out.grad_fn is not None]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        pending.extend(before for before, _ in node.next_functions if before is not None)


def saved_bytes(outputs: Iterable[Tensor], known: Iterable[Tensor] = ()) -> int:
    """Bytes of the storages that the graph behind `outputs` keeps for its backward pass, without those of `known`.

    The graph is walked, rather than watched by hooks, so that a compiled step is measured as it runs.
    """
    storages = {}
    for node in graph_nodes(outputs):
        for tensor in _saved(node):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    for tensor in known:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def _saved(node: torch.autograd.graph.Node) -> Iterable[Tensor]:
    if hasattr(node, "saved_tensors"):
        return (x for x in node.saved_tensors if isinstance(x, Tensor))
    values = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
    flat = [x for value in values for x in (value if isinstance(value, (tuple, list)) else [value])]
    return (x for x in flat if isinstance(x, Tensor))


def segment_bytes(recurrence: Recurrence, room: int) -> int:
    """What one segment keeps for its backward pass, in bytes, found by running the first one and, on a CPU, the second.

    On a CPU it is what becomes resident, where that is more: what lies between kept tensors cannot be used for others. Where there
    is room for two, it is what the second one adds, which uses what the first has left behind.

    Args:
        recurrence: of at least two segments.
        room: bytes that may be used.
    """
    state = _leaves(recurrence.state)
    with torch.enable_grad():
        first = recurrence.run(0, 1, state)
        saved = saved_bytes(first, (*recurrence.parameters, *recurrence.shared, *recurrence.segments, *state))
        state = _leaves(first)
        # One at a time: two would exceed the budgets that this is to find the segments for.
        del first
        if state[0].device.type != "cpu":
            return saved
        memory = memory_of("cpu")
        memory.return_freed()
        one, grown = _grown(recurrence, state, memory)
        if 2 * grown <= room:
            _, grown = _grown(recurrence, state, memory)
        del one
        return max(saved, grown)


def _leaves(state: Tensors) -> Tensors:
    return tuple(x.detach().requires_grad_(x.is_floating_point()) for x in state)


def _grown(recurrence: Recurrence, state: Tensors, memory: Memory) -> tuple[Tensors, int]:
    before = memory.used()
    final = recurrence.run(1, 2, state)
    return final, memory.used() - before


def stored_bytes(state: Tensors) -> int:
    """What replay stores for one segment that it does not keep alive."""
    return sum(x.nbytes for x in state)
