"""AMRB: backpropagation that stores the states between segments and recomputes their activations.

`reference.py` is the same method in 30 lines; read it first.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rmaat.backprop.base import Recurrence, Tensors, split
from rmaat.backprop.segment_memory import graph_nodes, segment_bytes, state_bytes
from rmaat.budget import Budget
from rmaat.errors import UserError
from rmaat.machine.memory import memory_of

ONE_SEGMENT = Budget(segments=1)

IN_FLIGHT = 0.75
"""An upper bound on the memory that a backward pass needs beside its activations, in segments.

Measured by benchmarks/in_flight.py as a share of the bytes that a segment saves: 0.09 with four
layers and 512 tokens, 0.34 with one layer, 0.73 with one layer and a single row of 64 tokens
(results/in_flight/in_flight.json).
"""


@dataclass(frozen=True)
class Replay:
    """The exact gradient in the memory of one segment [P; Memformer's MRBP is the same, M].

    The forward pass stores the states between segments and no activations. The backward pass takes
    the segments from the last to the first: it computes one again from its stored state, with
    gradients, sends the incoming gradient through it, and frees its activations.

    The last segment would be recomputed at once, so its activations stay alive instead. With a
    larger budget so do those of the segments before it, which are then not computed twice.

    The backward of the result is one node of the autograd graph. Parameters, shared tensors and
    states are its inputs; their gradients are summed inside and returned. So DDP, gradient
    accumulation, scaling and hooks see one gradient per tensor. The segments are computed again
    from the tensors of the forward pass, whatever the module holds by then.

    Attributes:
        budget: the memory for activations that stay alive; the default is one segment.
        buffer: the device that stores the states between segments; None is the state's own device.
    """

    recomputes: ClassVar[bool] = True

    budget: Budget = ONE_SEGMENT
    buffer: torch.device | None = None
    _segment_bytes: dict[Hashable, int] = field(
        default_factory=dict,
        init=False,
        repr=False,
        compare=False,
    )
    _free_bytes: dict[torch.device, int] = field(
        default_factory=dict,
        init=False,
        repr=False,
        compare=False,
    )

    def __call__(self, recurrence: Recurrence) -> Tensors:
        """Return the final state and the histories.

        Raises:
            UserError: if a trained tensor outside `recurrence.inputs` takes part in a segment.
        """
        if recurrence.total < 2 or not torch.is_grad_enabled():
            return recurrence.run_all()
        autocast = _AutocastState.current(recurrence.state[0].device.type)
        # The measurement runs a segment, so it needs the same autocast settings.
        with autocast.restored():
            replayed = max(recurrence.total - self._alive_segments(recurrence), 0)
        inputs = [x for group in recurrence.inputs for x in group]
        if replayed and any(x.requires_grad for x in inputs):
            sizes = tuple(map(len, recurrence.inputs))
            plan = _Plan(recurrence, sizes, replayed, autocast, self.buffer)
            return _ReplayFunction.apply(plan, *inputs)
        with autocast.restored():
            return recurrence.run_all()

    def _alive_segments(self, recurrence: Recurrence) -> int:
        """Return the number of segments whose activations stay alive, at least 1."""
        if self.budget.segments is not None:
            return self.budget.segments
        first_segment = tuple(x[0] for x in recurrence.segments)
        device = recurrence.state[-1].device
        # Whatever changes the memory of a segment is part of the key: shapes, types, autocast, and
        # how many parameters are trained.
        key = (
            *((tuple(x.shape), x.dtype) for x in (*first_segment, *recurrence.state)),
            torch.is_autocast_enabled(device.type),
            torch.get_autocast_dtype(device.type),
            sum(x.requires_grad for x in recurrence.parameters),
        )
        size = self._budget_bytes(device)
        if key not in self._segment_bytes:
            self._segment_bytes[key] = segment_bytes(recurrence, size)
        # The stored states come out of the budget too, unless they are stored on another device.
        elsewhere = self.buffer is not None and self.buffer.type != device.type
        stored = 0 if elsewhere else state_bytes(recurrence.state) * recurrence.total
        fitting = (size - stored) / max(self._segment_bytes[key], 1)
        # Gradients of activations come and go during the backward pass and need room as well.
        return max(int(fitting - IN_FLIGHT), 1)

    def _budget_bytes(self, device: torch.device) -> int:
        if self.budget.size is not None:
            return self.budget.size
        assert self.budget.fraction is not None
        # Read once: otherwise the memory that one step holds or frees would change the number of
        # segments, and so the time, of the next step.
        if device not in self._free_bytes:
            self._free_bytes[device] = memory_of(device).free()
        return int(self.budget.fraction * self._free_bytes[device])


@dataclass(frozen=True)
class _AutocastState:
    """The autocast settings of a forward pass, for segments that are computed after it."""

    device_type: str
    enabled: bool
    dtype: torch.dtype

    @staticmethod
    def current(device_type: str) -> "_AutocastState":
        enabled = torch.is_autocast_enabled(device_type)
        return _AutocastState(device_type, enabled, torch.get_autocast_dtype(device_type))

    def restored(self) -> torch.autocast:
        # No cache: it would keep a weight that was cast while gradients were off, which is cut from
        # its graph, for segments that need the gradient. All segments run without the cache, the
        # last one too, because a compiled step is another graph with it.
        return torch.autocast(self.device_type, self.dtype, self.enabled, cache_enabled=False)


@dataclass(frozen=True)
class _Plan:
    """What the backward pass needs beside tensors.

    Attributes:
        recurrence: holds tensors in the forward pass only. For the backward pass autograd saves
            them, because it frees them and checks their versions.
        sizes: the numbers of parameters, shared tensors, segment tensors and state tensors.
        replayed: the first so many segments are computed again.
        autocast: the settings of the forward pass.
        buffer: the device that stores states.
    """

    recurrence: Recurrence
    sizes: tuple[int, ...]
    replayed: int
    autocast: _AutocastState
    buffer: torch.device | None

    def without_tensors(self) -> "_Plan":
        bare = replace(self.recurrence, parameters=(), shared=(), segments=(), state=())
        return replace(self, recurrence=bare)


class _ReplayFunction(torch.autograd.Function):
    """Replay as one node of the autograd graph."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *inputs: Tensor) -> Tensors:
        recurrence = plan.recurrence
        # Detached, so that a compiled step meets states of one kind: none requires a gradient here,
        # all do in the backward pass.
        state = tuple(x.detach() for x in recurrence.state)
        # Allocate all stored states at once. Small states allocated between activations would
        # fragment the heap: the next segment's activations would not fit into the freed ones.
        count = plan.replayed
        stored = tuple(x.new_empty(count, *x.shape, device=plan.buffer or x.device) for x in state)
        # Autograd is off inside `forward`, so these segments leave nothing but their states.
        # Entry t of `stored` is the state after segment t, from which segment t + 1 is recomputed.
        with plan.autocast.restored():
            for index, following in enumerate(recurrence.states(0, count, state)):
                state = following
                for states, x in zip(stored, state, strict=True):
                    states[index].copy_(x)
        # Save aliases instead of the tensors themselves: after `p.data = other` the alias still has
        # the values that the forward pass used.
        saved = tuple(x.detach() for x in inputs)
        ctx.plan = plan.without_tensors()
        # The last segments are computed once, with gradients, and their graph stays alive.
        needs = ctx.needs_input_grad[1:]
        ctx.last_graph = _SegmentGraph.build(ctx.plan, count, recurrence.total, saved, state, needs)
        ctx.last_graph.check_leaves()
        ctx.save_for_backward(*saved, *stored)
        # A history is the stored states, then those of the segments that stay alive.
        last_records = recurrence.stack([recurrence.record(x) for x in ctx.last_graph.states])
        histories = tuple(
            torch.cat([stored[index].to(x.device), x.detach()])
            for index, x in zip(recurrence.history, last_records, strict=True)
        )
        return (*(x.detach() for x in ctx.last_graph.states[-1]), *histories)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_results: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        saved = ctx.saved_tensors
        inputs, stored = saved[: sum(plan.sizes)], saved[sum(plan.sizes) :]
        parameters, shared, segments, first_state = split(inputs, plan.sizes)
        needs = ctx.needs_input_grad[1:]
        needs_parameters, needs_shared, needs_segments, _ = split(needs, plan.sizes)
        # Every gradient that outlives a segment is allocated before the first one is recomputed,
        # for the reason that the stored states are: small tensors must not lie among activations.
        sums = _GradientSums((*parameters, *shared), (*needs_parameters, *needs_shared))
        needed = zip(segments, needs_segments, strict=True)
        segment_grads = [torch.zeros_like(x) if need else None for x, need in needed]
        grad_final = grad_results[: len(first_state)]
        grad_histories = grad_results[len(first_state) :]
        # This is the gradient of the state after the segments at hand. It goes through them and
        # becomes the gradient of the state before them, in place. It starts as a copy, because what
        # comes in belongs to autograd.
        state_grads = tuple(torch.empty_like(x) for x in grad_final)
        for state_grad, grad in zip(state_grads, grad_final, strict=True):
            state_grad.copy_(grad)
        # Take the graph out of `ctx`, so that dropping it below frees its many small nodes as well
        # as its activations before the next segment is computed.
        graph, ctx.last_graph = ctx.last_graph, None
        # The first pass is over all segments that stayed alive, each other one over one segment.
        for start in reversed(range(plan.replayed + 1)):
            stop = start + 1 if start < plan.replayed else plan.recurrence.total
            # With `retain_graph` a second backward pass comes here without the graph of the last
            # segments, and computes them again too.
            if graph is None:
                before = first_state
                if start:
                    pairs = zip(stored, first_state, strict=True)
                    before = tuple(states[start - 1].to(x.device) for states, x in pairs)
                graph = _SegmentGraph.build(plan, start, stop, inputs, before, needs)
            grad_records = tuple(grads[start:stop] for grads in grad_histories)
            of_segments, of_state = graph.gradients(state_grads, grad_records, sums)
            graph = None
            for total, grad in zip(segment_grads, of_segments, strict=True):
                if total is not None and grad is not None:
                    total[start:stop] = grad
            for state_grad, grad in zip(state_grads, of_state, strict=True):
                # None: the segments do not use this state tensor.
                state_grad.zero_() if grad is None else state_grad.copy_(grad)
            # Free the last references to this segment's gradients before the next one runs.
            del of_segments, of_state, grad
        return (None, *sums.result(), *segment_grads, *state_grads)


@dataclass(frozen=True)
class _SegmentGraph:
    """The autograd graph of one or more segments; their activations live as long as it does.

    Attributes:
        summed: the leaves whose gradients are summed over segments: parameters and shared tensors.
        segments: the leaves of the segments' inputs, (stop - start, ...).
        state: the leaves of the state before the first of the segments.
        states: the state after each segment.
        history: as in `Recurrence`.
    """

    summed: Tensors
    segments: Tensors
    state: Tensors
    states: list[Tensors]
    history: tuple[int, ...]

    @staticmethod
    def build(
        plan: _Plan, start: int, stop: int, inputs: Tensors, state: Tensors, needs: tuple[bool, ...]
    ) -> "_SegmentGraph":
        """Compute segments start .. stop - 1 from `state` with gradients.

        Args:
            plan: that of the recurrence.
            start: the first segment.
            stop: one past the last segment.
            inputs: all inputs of the recurrence.
            state: the state before segment `start`.
            needs: which inputs need a gradient.
        """
        parameters, shared, segments, _ = split(inputs, plan.sizes)
        needs_parameters, needs_shared, needs_segments, _ = split(needs, plan.sizes)
        with torch.enable_grad(), plan.autocast.restored():
            # Every input becomes a leaf, so that a gradient ends in this graph instead of in the
            # caller's. Parameters become `Parameter`, so that a compiled step meets one kind of
            # tensor in them.
            parameter_leaves = tuple(map(torch.nn.Parameter, parameters, needs_parameters))
            shared_leaves = tuple(map(_leaf, shared, needs_shared))
            rows = (x[start:stop] for x in segments)
            segment_leaves = tuple(map(_leaf, rows, needs_segments))
            # Always with a gradient, even if the initial state needs none: that of the parameters
            # goes through the states.
            state_leaves = tuple(_leaf(x, x.is_floating_point()) for x in state)
            states, current = [], state_leaves
            for index in range(stop - start):
                segment = tuple(x[index] for x in segment_leaves)
                arguments = (parameter_leaves, shared_leaves, segment, current)
                current = plan.recurrence.step(start + index, *arguments)
                states.append(current)
        summed = (*parameter_leaves, *shared_leaves)
        return _SegmentGraph(summed, segment_leaves, state_leaves, states, plan.recurrence.history)

    def check_leaves(self) -> None:
        """Raise `UserError` if the graph reaches a trained tensor that is no argument of the step.

        Its gradient would be lost, because only those of the arguments are returned.
        """
        arguments = {id(x) for x in (*self.summed, *self.segments, *self.state)}
        for node in graph_nodes(self.states[-1]):
            # The node of a leaf has the leaf as its `variable`.
            leaf = getattr(node, "variable", None)
            if leaf is not None and id(leaf) not in arguments:
                raise UserError(
                    f"a trained tensor of shape {tuple(leaf.shape)} takes part in the segments "
                    "without being a parameter of the layers, and replay would lose its gradient; "
                    "register it in one of them, or set memory_replay_backprop: false"
                )

    def gradients(
        self, state_grads: Tensors, grad_records: Tensors, sums: "_GradientSums"
    ) -> tuple[tuple[Tensor | None, ...], tuple[Tensor | None, ...]]:
        """Send gradients back through the segments, and free their activations.

        Args:
            state_grads: gradients of the last state.
            grad_records: gradients of the histories of these segments, (len(states), B, ...) each.
            sums: the gradients of parameters and shared tensors are added to it.

        Returns:
            The gradients of the segments' inputs and of the state before them. Tensors that need
            none, or that no gradient reaches, have None.
        """
        inputs = (*self.summed, *self.segments, *self.state)
        # A loss may be taken on the last state and, through a history, on the state after each
        # segment: all of these are where the backward pass begins.
        pairs = list(zip(self.states[-1], state_grads, strict=True))
        for index, grads in zip(self.history, grad_records, strict=True):
            pairs += [(state[index], grad) for state, grad in zip(self.states, grads, strict=True)]
        pairs = [(out, grad) for out, grad in pairs if out.requires_grad]
        places = [i for i, x in enumerate(inputs) if x.requires_grad]
        result: list[Tensor | None] = [None] * len(inputs)
        if pairs and places:
            outputs, output_grads = zip(*pairs, strict=True)
            sums.collect_from(self.summed)
            leaves = [inputs[i] for i in places]
            grads_of_leaves = torch.autograd.grad(outputs, leaves, output_grads, allow_unused=True)
            for place, grad in zip(places, grads_of_leaves, strict=True):
                result[place] = grad
        # The gradients of `summed` are in the sums already.
        sizes = tuple(map(len, (self.summed, self.segments, self.state)))
        _, of_segments, of_state = split(tuple(result), sizes)
        return of_segments, of_state


def _leaf(x: Tensor, requires_grad: bool) -> Tensor:
    return x.detach().requires_grad_(requires_grad)


class _GradientSums:
    """Sums of gradients over segments, in at least float32.

    In bfloat16 a sum of hundreds of terms would lose the small ones.

    Args:
        tensors: the tensors whose gradients are summed.
        needed: which of them need a gradient.
    """

    def __init__(self, tensors: Tensors, needed: tuple[bool, ...]) -> None:
        self._tensors = tensors
        self._sums = [
            torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) if need else None
            for x, need in zip(tensors, needed, strict=True)
        ]
        self._reached = [False] * len(tensors)

    def collect_from(self, leaves: Tensors) -> None:
        """Add each gradient that reaches one of the leaves to its sum, at that moment.

        Otherwise all gradients of a segment would exist at once beside the sums, as a second set of
        them among the activations.
        """
        for index, leaf in enumerate(leaves):
            if leaf.requires_grad:
                leaf.register_hook(partial(self._add, index))

    def _add(self, index: int, grad: Tensor) -> Tensor:
        total = self._sums[index]
        assert total is not None
        total.add_(grad)
        self._reached[index] = True
        # Autograd gets a zero without memory of its own in place of the gradient.
        return grad.new_zeros(()).expand(grad.shape)

    def result(self) -> list[Tensor | None]:
        """Return the sums in the tensors' own types; None if no gradient reached the tensor."""
        return [
            total.to(x.dtype) if total is not None and reached else None
            for x, total, reached in zip(self._tensors, self._sums, self._reached, strict=True)
        ]
