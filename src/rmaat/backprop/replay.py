"""AMRB: backpropagation that keeps the states between segments and computes each segment again on the way back."""

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rmaat.backprop.base import Recurrence, Tensors
from rmaat.backprop.kept import free_bytes, segment_bytes, stored_bytes
from rmaat.budget import Budget
from rmaat.resident import return_freed

T = TypeVar("T")

FLOOR = Budget(segments=1)

IN_FLIGHT = 0.25
"""Of a segment's kept bytes, what its backward pass holds at one time beside them."""


@dataclass(frozen=True)
class Replay:
    """The exact gradient in the memory of one segment [P; the same as Memformer's MRBP, M].

    The forward pass keeps the states between segments and no activations. The backward pass takes the segments from the last
    to the first: it computes one again from its stored state, with gradients, sends the incoming gradient through it, and
    drops its activations. The last segment is kept alive instead, since it would be replayed at once; so are as many before it
    as the budget has room for, which saves their second computation.

    The result's backward is one node of the graph: parameters, shared tensors and states are its inputs, and their gradients are
    summed inside and returned, so whatever hangs on a leaf's gradient (DDP, accumulation, scaling) sees it once.

    Attributes:
        budget: what the kept segments may hold; the default keeps one. Where it is memory, not segments, freed memory goes back to
            the system before each segment on a CPU, which glibc would keep: the least memory, at the price of page faults.
        buffer: where the states between segments are stored; None is where they are computed.
    """

    budget: Budget = FLOOR
    buffer: torch.device | None = None
    _measured: dict[Any, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, recurrence: Recurrence) -> Tensors:
        """The final state, with the activations of the kept segments and nothing of the others."""
        if recurrence.total < 2 or not torch.is_grad_enabled():
            return recurrence.run(0, recurrence.total, recurrence.state)
        # A budget of memory is held at the price of time; one of segments, the default, is not.
        held = self.budget.segments is None
        autocast = _AutocastState.of(recurrence.state[0].device.type)
        with autocast.restored():
            replayed = max(recurrence.total - self._kept(recurrence), 0)
        state = recurrence.state
        if replayed:
            state = _replay(recurrence, replayed, autocast, self.buffer, held)
            if held:
                _free_room(state[0].device)
        with autocast.restored():
            return recurrence.run(replayed, recurrence.total, state)

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
        )
        if key not in self._measured:
            self._measured[key] = segment_bytes(recurrence)
        elsewhere = self.buffer is not None and self.buffer.type != kind
        stored = 0 if elsewhere else stored_bytes(recurrence.state) * recurrence.total
        return max(int((self._size(first[-1].device) - stored) / max(self._measured[key], 1) - IN_FLIGHT), 1)

    def _size(self, device: torch.device) -> int:
        if self.budget.size is not None:
            return self.budget.size
        assert self.budget.fraction is not None
        # Read once: what a step has freed or holds must not change the next step's time and memory.
        if device not in self._measured:
            self._measured[device] = free_bytes(device)
        return int(self.budget.fraction * self._measured[device])


def _replay(
    recurrence: Recurrence, count: int, autocast: "_AutocastState", buffer: torch.device | None, held: bool
) -> Tensors:
    groups = (recurrence.parameters, recurrence.shared, recurrence.segments, recurrence.state)
    plan = _Plan(recurrence, count, tuple(map(len, groups)), autocast, buffer, held)
    return _ReplayFunction.apply(plan, *(x for group in groups for x in group))


def _free_room(device: torch.device) -> None:
    # Between two segments almost all of a CPU's heap is free, but small things that live on (gradients, stored states) stand in
    # its holes, so that the next segment's activations do not fit there and the heap grows to twice a segment's size.
    if device.type == "cpu":
        return_freed()


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
    """What the backward pass needs beside tensors; `sizes` are those of parameters, shared, segments and state."""

    recurrence: Recurrence
    count: int
    sizes: tuple[int, ...]
    autocast: _AutocastState
    buffer: torch.device | None
    held: bool

    def split(self, flat: tuple[T, ...]) -> list[tuple[T, ...]]:
        groups, start = [], 0
        for size in self.sizes:
            groups.append(flat[start : start + size])
            start += size
        return groups


class _ReplayFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, *flat: Tensor) -> Tensors:
        _, _, _, first = plan.split(flat)
        # Detached, so that a compiled step meets states of one kind: none requires a gradient here, all do in the backward.
        state = tuple(x.detach() for x in first)
        stored: list[Tensor] = []
        with plan.autocast.restored():
            for index in range(plan.count):
                if index:
                    stored.extend(x if plan.buffer is None else x.to(plan.buffer) for x in state)
                state = plan.recurrence.run(index, index + 1, state)
        # The recurrence in the plan must not hold tensors: those are saved, so that freeing and version checks see them.
        ctx.plan = replace(plan, recurrence=replace(plan.recurrence, parameters=(), shared=(), segments=(), state=()))
        ctx.save_for_backward(*flat, *stored)
        return state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_state: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        saved = ctx.saved_tensors
        flat, later = saved[: sum(plan.sizes)], saved[sum(plan.sizes) :]
        parameters, shared, segments, first_state = plan.split(flat)
        needs_parameters, needs_shared, needs_segments, _ = plan.split(ctx.needs_input_grad[1:])
        width, device = len(first_state), first_state[0].device
        states = [first_state, *(later[i : i + width] for i in range(0, len(later), width))]
        sums = _GradientSums((*parameters, *shared), (*needs_parameters, *needs_shared))
        segment_grads = [
            torch.zeros_like(x) if need else None for x, need in zip(segments, needs_segments, strict=True)
        ]
        grads: Tensors = grad_state
        for index in reversed(range(plan.count)):
            if plan.held:
                _free_room(device)
            with torch.enable_grad(), plan.autocast.restored():
                state_in = tuple(_leaf(x.to(device), x.is_floating_point()) for x in states.pop())
                shared_in = tuple(map(_leaf, shared, needs_shared))
                given = tuple(_leaf(x[index], need) for x, need in zip(segments, needs_segments, strict=True))
                state_out = plan.recurrence.step(index, shared_in, given, state_in)
            wanted = [*parameters, *shared_in, *given, *state_in]
            found = _gradients(state_out, grads, wanted)
            sums.add(found[: len(parameters) + len(shared)])
            for total, grad in zip(segment_grads, found[-len(given) - width : -width], strict=True):
                if total is not None and grad is not None:
                    total[index] = grad
            grads = tuple(
                torch.zeros_like(x) if grad is None else grad for x, grad in zip(state_in, found[-width:], strict=True)
            )
        return (None, *sums.result(), *segment_grads, *grads)


def _leaf(x: Tensor, requires_grad: bool) -> Tensor:
    return x.detach().requires_grad_(requires_grad)


def _gradients(outputs: Tensors, grads: Tensors, inputs: list[Tensor]) -> list[Tensor | None]:
    """One gradient an input, None where an input does not require or does not reach one."""
    pairs = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if out.requires_grad]
    places = [i for i, x in enumerate(inputs) if x.requires_grad]
    result: list[Tensor | None] = [None] * len(inputs)
    if pairs and places:
        heads, head_grads = zip(*pairs, strict=True)
        found = torch.autograd.grad(heads, [inputs[i] for i in places], head_grads, allow_unused=True)
        for place, grad in zip(places, found, strict=True):
            result[place] = grad
    return result


class _GradientSums:
    """Sums over segments, in at least float32: hundreds of bfloat16 terms would lose the small ones."""

    def __init__(self, like: Tensors, needed: tuple[bool, ...]) -> None:
        self._like = like
        self._needed = needed
        self._sums: list[Tensor | None] = [None] * len(like)

    def add(self, grads: list[Tensor | None]) -> None:
        for i, grad in enumerate(grads):
            if grad is None or not self._needed[i]:
                continue
            total = self._sums[i]
            if total is None:
                self._sums[i] = grad.to(torch.promote_types(grad.dtype, torch.float32), copy=True)
            else:
                total.add_(grad)

    def result(self) -> list[Tensor | None]:
        return [None if total is None else total.to(x.dtype) for x, total in zip(self._like, self._sums, strict=True)]
