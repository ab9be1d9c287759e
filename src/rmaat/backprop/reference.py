"""Replay as the shortest program that computes it, to read before `replay.py`.

Per segment t:  state[t + 1] = step(parameters, shared, inputs[t], state[t]).

`replay.py` returns the same gradients. It adds:

- a budget: the activations of the last segments stay alive, so they are not computed twice;
- memory: states and sums are allocated ahead and gradients are summed as they arise, which keeps
  the heap from fragmenting, and states can be stored on another device;
- precision: autocast is restored, and gradients of bfloat16 weights are summed in float32;
- safety: weights are saved as they were in the forward pass, frozen tensors get no gradient, and
  trained tensors that the step does not take as arguments are refused.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rmaat.backprop.base import Recurrence, Tensors, split


class ReferenceReplay:
    """The exact gradient with one segment's activations at a time [P]; for tests and readers."""

    recomputes: ClassVar[bool] = True

    def __call__(self, recurrence: Recurrence) -> Tensors:
        """Return the final state and the histories."""
        return _Function.apply(recurrence, *(x for group in recurrence.inputs for x in group))


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loop: Recurrence, *_: Tensor) -> Tensors:
        # Autograd is off in here: each segment leaves nothing but its state.
        states = [loop.state, *loop.states(0, loop.total, loop.state)]
        ctx.loop, ctx.states = loop, states[:-1]
        return (*states[-1], *loop.stack([loop.record(state) for state in states[1:]]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        loop: Recurrence = ctx.loop
        state_grads, history_grads = list(grads[: len(loop.state)]), grads[len(loop.state) :]
        summed = (*loop.parameters, *loop.shared)
        sums = [torch.zeros_like(x) for x in summed]
        segment_grads = [torch.zeros_like(x) for x in loop.segments]
        for t in reversed(range(loop.total)):
            # A loss on the history reaches the state after segment t directly.
            for index, grad in zip(loop.history, history_grads, strict=True):
                state_grads[index] = state_grads[index] + grad[t]
            # Compute segment t again, with gradients, from copies that are cut off from the rest.
            inputs = (*summed, *(x[t] for x in loop.segments), *ctx.states[t])
            leaves = tuple(x.detach().requires_grad_(x.is_floating_point()) for x in inputs)
            with torch.enable_grad():
                after = loop.step(t, *split(leaves, tuple(map(len, loop.inputs))))
            # Gradients of parameters are summed; the state's goes on to the segment before.
            torch.autograd.backward(after, state_grads)
            new = [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]
            for total, grad in zip(sums, new[: len(sums)], strict=True):
                total += grad
            state_grads = new[len(new) - len(loop.state) :]
            for total, grad in zip(segment_grads, new[len(sums) : -len(loop.state)], strict=True):
                total[t] = grad
        return (None, *sums, *segment_grads, *state_grads)
