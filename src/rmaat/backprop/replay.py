"""AMRB: backpropagation that keeps the states between segments and computes each segment again on the way back."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rmaat.backprop.base import Recurrence, Tensors
from rmaat.backprop.kept import graph_nodes, segment_bytes, stored_bytes
from rmaat.budget import Budget
from rmaat.errors import UserError
from rmaat.machine.memory import memory_of

T = TypeVar("T")

FLOOR = Budget(segments=1)

IN_FLIGHT = 0.35
"""Of a segment's kept bytes, what its backward pass holds at one time beside them."""


@dataclass(frozen=True)
class Replay:
    """The exact gradient in the memory of one segment [P; the same as Memformer's MRBP, M].

    The forward pass keeps the states between segments and no activations. The backward pass takes the segments from the last
    to the first: it computes one again from its stored state, with gradients, sends the incoming gradient through it, and
    drops its activations. The last segment is kept alive instead, since it would be replayed at once; so are as many before it
    as the budget has room for, which saves their second computation.

    The result's backward is one node of the graph: parameters, shared tensors and states are its inputs, and their gradients are
    summed inside and returned, so whatever hangs on one of them (DDP, accumulation, scaling, hooks) sees its gradient once. The
    segments are computed again from what went in, whatever a module or another thread holds by then.

    Attributes:
        budget: what the kept segments may hold; the default keeps one.
        buffer: where the states between segments are stored; None is where they are computed.
    """

    budget: Budget = FLOOR
    buffer: torch.device | None = None
    _measured: dict[Any, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, recurrence: Recurrence) -> Tensors:
        """The final state and what is watched, with the activations of the kept segments and nothing of the others."""
        if recurrence.total < 2 or not torch.is_grad_enabled():
            return recurrence.run_all()
        autocast = _AutocastState.of(recurrence.state[0].device.type)
        with autocast.restored():
            replayed = max(recurrence.total - self._kept(recurrence), 0)
        everything = (*recurrence.parameters, *recurrence.shared, *recurrence.segments, *recurrence.state)
        if replayed and any(x.requires_grad for x in everything):
            return _replay(recurrence, replayed, autocast, self.buffer)
        with autocast.restored():
            return recurrence.run_all()

    def _kept(self, recurrence: Recurrence) -> int:
        """The segments kept alive, at least the last."""
        if self.budget.segments is not None:
            return self.budget.segments
        first = (*(x[0] for x in recurrence.segments), *recurrence.state)
        kind = first[-1].device.type
        key = (
            *((tuple(x.shape), x.dtype) for x in first),
            torch.is_autocast_enabled(kind),
            torch.get_autocast_dtype(kind),
            sum(x.requires_grad for x in recurrence.parameters),
        )
        size = self._size(first[-1].device)
        if key not in self._measured:
            self._measured[key] = segment_bytes(recurrence, size)
        elsewhere = self.buffer is not None and self.buffer.type != kind
        stored = 0 if elsewhere else stored_bytes(recurrence.state) * recurrence.total
        return max(int((size - stored) / max(self._measured[key], 1) - IN_FLIGHT), 1)

    def _size(self, device: torch.device) -> int:
        if self.budget.size is not None:
            return self.budget.size
        assert self.budget.fraction is not None
        # Read once: what a step has freed or holds must not change the next step's time and memory.
        if device not in self._measured:
            self._measured[device] = memory_of(device).free()
        return int(self.budget.fraction * self._measured[device])


def _replay(recurrence: Recurrence, count: int, autocast: "_AutocastState", buffer: torch.device | None) -> Tensors:
    groups = (recurrence.parameters, recurrence.shared, recurrence.segments, recurrence.state)
    plan = _Plan(recurrence, count, tuple(map(len, groups)), autocast, buffer)
    return _ReplayFunction.apply(plan, *(x for group in groups for x in group))


@dataclass(frozen=True)
class _AutocastState:
    device_type: str
    enabled: bool
    dtype: torch.dtype

    @staticmethod
    def of(device_type: str) -> "_AutocastState":
        return _AutocastState(
            device_type, torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)
        )

    def restored(self) -> torch.autocast:
        # Uncached: a weight cast while gradients are off would be reused, cut from its graph, where they are on. All
        # segments run so, the last one too, since a compiled step is another graph where the cache is.
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.enabled, cache_enabled=False)


@dataclass(frozen=True)
class _Plan:
    """What the backward pass needs beside tensors; `sizes` are those of parameters, shared, segments and state.

    Its recurrence holds no tensor: they are saved, so that freeing and version checks see them.
    """

    recurrence: Recurrence
    count: int
    sizes: tuple[int, ...]
    autocast: _AutocastState
    buffer: torch.device | None

    def split(self, flat: tuple[T, ...]) -> list[tuple[T, ...]]:
        groups, start = [], 0
        for size in self.sizes:
            groups.append(flat[start : start + size])
            start += size
        return groups


class _ReplayFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, *flat: Tensor) -> Tensors:
        recurrence = plan.recurrence
        # Detached, so that a compiled step meets states of one kind: none requires a gradient here, all do in the backward.
        state = tuple(x.detach() for x in recurrence.state)
        # Room for all at once: a state stored by itself, amid the activations, would stand in the way of the next segment's.
        stored = tuple(
            torch.empty((plan.count, *x.shape), dtype=x.dtype, device=plan.buffer or x.device) for x in state
        )
        with plan.autocast.restored():
            for index, after in enumerate(recurrence.states(0, plan.count, state)):
                state = after
                for states, x in zip(stored, state, strict=True):
                    states[index].copy_(x)
        # Aliases of what went in: a tensor given other data later is still the one that was computed with.
        saved = tuple(x.detach() for x in flat)
        ctx.plan = replace(plan, recurrence=replace(recurrence, parameters=(), shared=(), segments=(), state=()))
        ctx.kept = _Graph.of(ctx.plan, plan.count, recurrence.total, saved, state, ctx.needs_input_grad[1:])
        ctx.kept.check_leaves()
        ctx.save_for_backward(*saved, *stored)
        watched = zip(recurrence.watched, recurrence.stack([recurrence.seen(x) for x in ctx.kept.states]), strict=True)
        histories = tuple(torch.cat([stored[place].to(x.device), x.detach()]) for place, x in watched)
        return (*_detached(ctx.kept.states[-1]), *histories)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_results: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        saved = ctx.saved_tensors
        flat, stored = saved[: sum(plan.sizes)], saved[sum(plan.sizes) :]
        parameters, shared, segments, first_state = plan.split(flat)
        needs = ctx.needs_input_grad[1:]
        needs_parameters, needs_shared, needs_segments, _ = plan.split(needs)
        sums = _GradientSums((*parameters, *shared), (*needs_parameters, *needs_shared))
        segment_grads = [
            torch.zeros_like(x) if need else None for x, need in zip(segments, needs_segments, strict=True)
        ]
        grad_state, grad_histories = grad_results[: len(first_state)], grad_results[len(first_state) :]
        # What outlives a segment has its place before the first one, for the same reason as the stored states.
        grads = tuple(torch.empty_like(x) for x in grad_state)
        for own, grad in zip(grads, grad_state, strict=True):
            own.copy_(grad)
        # Dropped before the next segment's, the small parts of a graph too: they lie among the activations.
        graph, ctx.kept = ctx.kept, None
        for start in reversed(range(plan.count + 1)):
            stop = start + 1 if start < plan.count else plan.recurrence.total
            if graph is None:
                state = tuple(x[start - 1].to(y.device) for x, y in zip(stored, first_state, strict=True))
                graph = _Graph.of(plan, start, stop, flat, state if start else first_state, needs)
            of_segments, of_state = graph.gradients(grads, tuple(x[start:stop] for x in grad_histories), sums)
            graph = None
            for total, grad in zip(segment_grads, of_segments, strict=True):
                if total is not None and grad is not None:
                    total[start:stop] = grad
            for own, grad in zip(grads, of_state, strict=True):
                own.zero_() if grad is None else own.copy_(grad)
            del of_segments, of_state, grad
        return (None, *sums.result(), *segment_grads, *grads)


@dataclass(frozen=True)
class _Graph:
    """The graph of some segments, from leaves of their own; its activations live as long as it does."""

    summed: Tensors
    segments: Tensors
    state: Tensors
    states: list[Tensors]
    watched: tuple[int, ...]

    @staticmethod
    def of(plan: _Plan, start: int, stop: int, flat: Tensors, state: Tensors, needs: tuple[bool, ...]) -> "_Graph":
        """Compute segments start .. stop - 1 from `state`; a gradient reaches the leaves of this graph alone."""
        parameters, shared, segments, _ = plan.split(flat)
        needs_parameters, needs_shared, needs_segments, _ = plan.split(needs)
        with torch.enable_grad(), plan.autocast.restored():
            # Parameters, so that a compiled step meets one kind of tensor in them.
            parameters_in = tuple(map(torch.nn.Parameter, parameters, needs_parameters))
            shared_in = tuple(map(_leaf, shared, needs_shared))
            given = tuple(_leaf(x[start:stop], need) for x, need in zip(segments, needs_segments, strict=True))
            state_in = tuple(_leaf(x, x.is_floating_point()) for x in state)
            states, after = [], state_in
            for index in range(stop - start):
                segment = tuple(x[index] for x in given)
                after = plan.recurrence.step(start + index, parameters_in, shared_in, segment, after)
                states.append(after)
        return _Graph((*parameters_in, *shared_in), given, state_in, states, plan.recurrence.watched)

    def check_leaves(self) -> None:
        """Raise `UserError` where a gradient would reach, and be lost on, a tensor that is no argument of the step."""
        own = {id(x) for x in (*self.summed, *self.segments, *self.state)}
        for node in graph_nodes(self.states[-1]):
            leaf = getattr(node, "variable", None)
            if leaf is not None and id(leaf) not in own:
                raise UserError(
                    f"a trained tensor of shape {tuple(leaf.shape)} takes part in the segments without being a parameter of the "
                    "layers, and replay would lose its gradient; register it in one of them, or set memory_replay_backprop: false"
                )

    def gradients(
        self, grads: Tensors, grad_histories: Tensors, sums: "_GradientSums"
    ) -> tuple[tuple[Tensor | None, ...], tuple[Tensor | None, ...]]:
        """Of segments and state, None where one does not require or is not reached by a gradient; the others' go into `sums`.

        Args:
            grads: of the last state.
            grad_histories: of what is watched in each state, (len(states), B, ...).
            sums: what the gradients of parameters and shared tensors are added to.
        """
        inputs = (*self.summed, *self.segments, *self.state)
        pairs = [*zip(self.states[-1], grads, strict=True)]
        for place, history in zip(self.watched, grad_histories, strict=True):
            pairs += [(state[place], grad) for state, grad in zip(self.states, history, strict=True)]
        pairs = [(out, grad) for out, grad in pairs if out.requires_grad]
        places = [i for i, x in enumerate(inputs) if x.requires_grad]
        result: list[Tensor | None] = [None] * len(inputs)
        if pairs and places:
            heads, head_grads = zip(*pairs, strict=True)
            sums.take(self.summed)
            found = torch.autograd.grad(heads, [inputs[i] for i in places], head_grads, allow_unused=True)
            for place, grad in zip(places, found, strict=True):
                result[place] = grad
        own = result[len(self.summed) :]
        return tuple(own[: len(self.segments)]), tuple(own[len(self.segments) :])


def _leaf(x: Tensor, requires_grad: bool) -> Tensor:
    return x.detach().requires_grad_(requires_grad)


def _detached(tensors: Tensors) -> Tensors:
    return tuple(x.detach() for x in tensors)


class _GradientSums:
    """Sums over segments, in at least float32: hundreds of bfloat16 terms would lose the small ones."""

    def __init__(self, like: Tensors, needed: tuple[bool, ...]) -> None:
        self._like = like
        self._sums = [
            torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) if need else None
            for x, need in zip(like, needed, strict=True)
        ]
        self._found = [False] * len(like)

    def take(self, leaves: Tensors) -> None:
        """From here on, add a gradient that reaches one of the leaves to its sum and let it go, a zero in its place.

        Else each segment's gradients would lie beside the sums, a second set of them among the activations.
        """
        for place, leaf in enumerate(leaves):
            if leaf.requires_grad:
                leaf.register_hook(partial(self._take, place))

    def _take(self, place: int, grad: Tensor) -> Tensor:
        total = self._sums[place]
        assert total is not None
        total.add_(grad)
        self._found[place] = True
        return grad.new_zeros(()).expand(grad.shape)

    def result(self) -> list[Tensor | None]:
        return [
            total.to(x.dtype) if total is not None and found else None
            for x, total, found in zip(self._like, self._sums, self._found, strict=True)
        ]
