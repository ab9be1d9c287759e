"""The memory that one segment of a recurrence takes, as autograd and the system count it."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.autograd.graph import Node

from rmaat.backprop.base import Recurrence, Tensors
from rmaat.machine.memory import Memory, memory_of


def graph_nodes(outputs: Iterable[Tensor]) -> Iterator[Node]:
    """Yield every node of the autograd graph behind `outputs` once."""
    visited = set()
    pending = [out.grad_fn for out in outputs if out.grad_fn is not None]
    while pending:
        node = pending.pop()
        if node in visited:
            continue
        visited.add(node)
        yield node
        pending.extend(earlier for earlier, _ in node.next_functions if earlier is not None)


def saved_bytes(outputs: Iterable[Tensor], excluded: Iterable[Tensor] = ()) -> int:
    """Return the bytes of the storages that the graph behind `outputs` saves for its backward pass.

    Args:
        outputs: tensors with a graph whose backward pass has not run.
        excluded: tensors whose storages are not counted, such as parameters.
    """
    # The graph is walked instead of watched by hooks, since hooks do not see a compiled step's
    # tensors. Two nodes may save views of one storage, which counts once.
    storages = {}
    for node in graph_nodes(outputs):
        for tensor in _saved_tensors(node):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    for tensor in excluded:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def _saved_tensors(node: Node) -> Iterable[Tensor]:
    """Return the tensors that a node saves: a Python function's own, or a built-in node's."""
    if hasattr(node, "saved_tensors"):
        values = list(node.saved_tensors)
    else:
        values = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
    flat = (x for value in values for x in (value if isinstance(value, tuple | list) else [value]))
    return (x for x in flat if isinstance(x, Tensor))


def segment_bytes(recurrence: Recurrence, limit: int) -> int:
    """Measure the bytes that one segment holds for its backward pass.

    The first segment is run with gradients and, on a CPU, the second one once or twice. On a CPU,
    the growth of resident memory is returned if it is larger than the tensors, because
    fragmentation makes the gaps between activations unusable.

    Args:
        recurrence: of at least two segments.
        limit: bytes that the measurement may use, as far as one segment fits.
    """
    state = _leaves(recurrence.state)
    known = (*recurrence.parameters, *recurrence.shared, *recurrence.segments, *state)
    with torch.enable_grad():
        after = recurrence.run(0, 1, state)
        tensors = saved_bytes(after, known)
        # The first segment is freed before the second one runs: both may be more than the limit.
        state = _leaves(after)
        del after
        if state[0].device.type != "cpu":
            return tensors
        # The first segment also paid for what any first call allocates, such as buffers of
        # libraries. Its freed memory goes back to the system so that the second one's shows.
        memory = memory_of("cpu")
        memory.return_freed()
        alive, growth = _resident_growth(recurrence, state, memory)
        # Beside a segment that is still alive, another one fills part of the gaps that the former
        # left. This is the growth per segment when many are alive, so it is preferred.
        if 2 * growth <= limit:
            _, growth = _resident_growth(recurrence, state, memory)
        del alive
        return max(tensors, growth)


def _leaves(state: Tensors) -> Tensors:
    return tuple(x.detach().requires_grad_(x.is_floating_point()) for x in state)


def _resident_growth(recurrence: Recurrence, state: Tensors, memory: Memory) -> tuple[Tensors, int]:
    """Run the second segment; return its result, whose graph is alive, and the growth in bytes."""
    before = memory.used()
    after = recurrence.run(1, 2, state)
    return after, memory.used() - before


def state_bytes(state: Tensors) -> int:
    """Return the bytes of one state, which replay stores for each segment that it recomputes."""
    return sum(x.nbytes for x in state)
