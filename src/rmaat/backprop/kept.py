"""How many segments fit into a budget of memory."""

from collections.abc import Iterable

import torch
from torch import Tensor

from rmaat import resident
from rmaat.backprop.base import Recurrence, Tensors


def saved_bytes(outputs: Iterable[Tensor], known: Iterable[Tensor] = ()) -> int:
    """Bytes of the storages that the graph behind `outputs` keeps for its backward pass, without those of `known`.

    The graph is walked, rather than watched by hooks, so that a compiled step is measured as it runs.
    """
    storages = {}
    seen = set()
    pending = [out.grad_fn for out in outputs if out.grad_fn is not None]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        for tensor in _saved(node):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        pending.extend(before for before, _ in node.next_functions if before is not None)
    for tensor in known:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def _saved(node: torch.autograd.graph.Node) -> Iterable[Tensor]:
    if hasattr(node, "saved_tensors"):
        return (x for x in node.saved_tensors if isinstance(x, Tensor))
    values = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
    flat = [x for value in values for x in (value if isinstance(value, (tuple, list)) else [value])]
    return (x for x in flat if isinstance(x, Tensor))


def segment_bytes(recurrence: Recurrence) -> int:
    """What one segment keeps for its backward pass, in bytes, found by running the first two.

    On a CPU it is what becomes resident, where that is more: what lies between kept tensors cannot be used for others.
    """
    state = tuple(x.detach().requires_grad_(x.is_floating_point()) for x in recurrence.state)
    with torch.enable_grad():
        first = recurrence.run(0, 1, state)
        known = (*recurrence.parameters, *recurrence.shared, *recurrence.segments, *state)
        saved = saved_bytes(first, known)
        # One at a time: two would exceed the budgets that this is to find the segments for.
        state = tuple(x.detach().requires_grad_(x.is_floating_point()) for x in first)
        del first
        if state[0].device.type != "cpu":
            return saved
        resident.return_freed()
        before = resident.resident_bytes()
        kept = recurrence.run(1, 2, state)
        grown = resident.resident_bytes() - before
        del kept
    resident.return_freed()
    return max(saved, grown)


def stored_bytes(state: Tensors) -> int:
    """What replay stores for one segment that it does not keep alive."""
    return sum(x.nbytes for x in state)


def free_bytes(device: torch.device) -> int:
    """Memory that this process could still take on the device."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return resident.free_bytes()
