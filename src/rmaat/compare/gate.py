"""Whether a method's gradients are right, as a condition of reporting it."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rmaat.compare.methods import METHODS, Method
from rmaat.compare.shapes import Shape

BOUND_FLOAT32 = 1e-4
BOUND_BF16 = 5e-2
"""Two orders of summing the same bfloat16 products differ by some of its last digits, 2^-9 each."""
SMALLEST_SHARE = 1e-4
"""A tensor whose gradient is below this share of the largest is measured against that share: it may be rounding alone."""


DIFFERENCE = 1e-4
"""The step of a difference quotient in float64, all of a tensor's numbers together."""
DIFFERENCES = "differences of the loss"


@dataclass(frozen=True)
class Verdict:
    """What the comparison of gradients found.

    Attributes:
        method: the method's name.
        reference: what it was compared with; None for a package's own full backpropagation.
        error: the largest relative error of a tensor; None where nothing was compared.
        tensor: the name of that tensor.
        error_of_all: the relative error of all tensors taken as one vector.
        bound: what the error may be.
        refusal: why the method is not reported, or None.
    """

    method: str
    reference: str | None
    error: float | None = None
    tensor: str | None = None
    error_of_all: float | None = None
    bound: float = BOUND_FLOAT32
    refusal: str | None = None


def judge(name: str, shape: Shape, device: str) -> Verdict:
    """Compare a method's gradients with its reference's at a small shape of the same kind, weights and dropout alike.

    The reference is never compiled. A method without one is held against differences of its loss, in float64; where it is
    compiled, then against itself eager. Another package's full backpropagation is taken as it is: one scales the gradient of its
    positions on purpose. A package that fails is refused with its message; a failure of this project's own is raised.
    """
    method, small = METHODS[name], shape.small()
    bound = BOUND_BF16 if shape.bf16 else BOUND_FLOAT32
    if method.reference is None and method.package is not None:
        return Verdict(name, None, bound=bound)
    reference = method.reference or DIFFERENCES
    try:
        if method.reference is not None:
            found = departure(method, METHODS[method.reference], small, device)
        else:
            found = departure_from_differences(method, small, device)
            # Written so that NaN ends here.
            if shape.torch_compile and found.error <= bound:
                found = departure(method, method, small, device)
    except Exception as failure:
        if method.package is None:
            raise
        return Verdict(name, reference, bound=bound, refusal=f"failed: {_line(failure)}")
    # Written so that NaN is refused.
    refusal = None
    if not found.error <= bound:
        refusal = f"gradients wrong by {found.error:.2g} in {found.tensor}, by {found.error_of_all:.2g} over all (bound {bound:g})"
    return Verdict(name, reference, found.error, found.tensor, found.error_of_all, bound, refusal)


@dataclass(frozen=True)
class Departure:
    """How far gradients are from those wanted: the worst tensor, its relative error, and that of all tensors as one."""

    tensor: str
    error: float
    error_of_all: float


def departure(method: Method, reference: Method, shape: Shape, device: str) -> Departure:
    """Of a method's gradients from its reference's, for one step at the same weights, tokens and dropout."""
    own = method.build(shape, device)
    other = reference.build(replace(shape, torch_compile=False), device)
    own.model.load_state_dict(other.model.state_dict())
    for workload in (own, other):
        workload.step(shape.tokens)
    return compare_gradients(_gradients(own.model), _gradients(other.model))


def departure_from_differences(method: Method, shape: Shape, device: str) -> Departure:
    """Of a method's gradients g from what its loss does, in float64 and eager: for each tensor the slope along a random
    direction u of length 1, by (loss(p + h u) - loss(p - h u)) / 2h, against g u.

    A wrong part d of g shows as d u, which is |d| / sqrt(n) in the mean square for n numbers: times sqrt(n), it stands for |d|.
    """
    made = method.build(replace(shape, torch_compile=False, bf16=False), device)
    model, loss = made.model.double(), made.loss
    assert loss is not None, "a method without a reference has a loss"
    made.step(shape.tokens)
    generator = torch.Generator().manual_seed(0)
    wanted, found = {}, _gradients(model)
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator).to(device)
        direction /= direction.norm()
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * DIFFERENCE)
                losses.append(loss(shape.tokens))
                parameter.sub_(direction, alpha=sign * DIFFERENCE)
        slope = (losses[0] - losses[1]) / (2 * DIFFERENCE)
        gradient = found.setdefault(name, torch.zeros_like(parameter))
        missing = slope - (gradient * direction).sum()
        wanted[name] = gradient + missing * math.sqrt(parameter.numel()) * direction
    return compare_gradients(found, wanted)


def compare_gradients(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> Departure:
    """Relative errors |a - b| / |b|; a missing gradient counts as zero, NaN as the worst."""
    differences, norms = {}, {}
    for name in sorted(found.keys() | wanted.keys()):
        a, b = found.get(name), wanted.get(name)
        norms[name] = 0.0 if b is None else b.norm().item()
        only = b if a is None else a if b is None else a - b
        assert only is not None
        differences[name] = only.norm().item()
    floor = SMALLEST_SHARE * max(norms.values(), default=0.0)
    assert floor > 0, "a comparison of gradients needs a gradient"
    errors = {name: differences[name] / max(norms[name], floor) for name in differences}
    worst = max(errors, key=lambda name: math.inf if math.isnan(errors[name]) else errors[name])
    return Departure(worst, errors[worst], math.hypot(*differences.values()) / math.hypot(*norms.values()))


def _gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}


def _line(failure: BaseException) -> str:
    told: Any = " ".join(str(failure).split())
    return f"{type(failure).__name__}: {told[:200]}"
