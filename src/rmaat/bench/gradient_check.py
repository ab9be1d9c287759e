"""Check that a method's gradients are right, as a condition of reporting it."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rmaat.bench.methods import METHODS, Method
from rmaat.bench.models import build
from rmaat.bench.shape import Shape

BOUND_FLOAT32 = 1e-4
BOUND_BF16 = 5e-2
"""Two orders of summing the same bfloat16 products differ in some last digits, 2^-9 each."""
SMALLEST_SHARE = 1e-4
"""A gradient smaller than this share of the largest is compared with the share, because it may be
rounding alone."""

DIFFERENCES = "differences of the loss"
STEP = 1e-4
"""The step of a difference quotient in float64, for all numbers of a tensor together."""


class GradientError(NamedTuple):
    """How far gradients are from the right ones; see `GradientCheck`."""

    error: float
    tensor: str
    error_of_all: float


@dataclass(frozen=True)
class GradientCheck:
    """The result of a check.

    Attributes:
        method: name of the method.
        reference: what it was compared with; None for a package's full backpropagation.
        error: the largest relative error of a tensor; None if nothing was compared.
        tensor: the name of that tensor.
        error_of_all: the relative error of all tensors taken as one vector.
        bound: the largest error that passes.
        refusal: why the method is not reported, or None.
    """

    method: str
    reference: str | None
    error: float | None = None
    tensor: str | None = None
    error_of_all: float | None = None
    bound: float = BOUND_FLOAT32
    refusal: str | None = None


def check_gradients(name: str, shape: Shape, device: str) -> GradientCheck:
    """Compare a method's gradients with its reference's, at a small shape of the same kind.

    The reference is full backpropagation of the same model, never compiled. For full
    backpropagation itself it is differences of the loss, in float64, and if it is compiled, then
    also itself without the compiler. A package's full backpropagation is not compared, because one
    package scales the gradient of its positions on purpose.

    Raises:
        Exception: a failure of this project's own models. A package that fails is refused.
    """
    method, reference, small = METHODS[name], METHODS[name].reference, shape.small()
    check = GradientCheck(name, None, bound=BOUND_BF16 if shape.bf16 else BOUND_FLOAT32)
    if reference is None and method.package is not None:
        return check
    check = replace(check, reference=DIFFERENCES if reference is None else _name(reference))
    try:
        if reference is not None:
            result = error_to(reference, method, small, device)
        else:
            result = error_to_differences(method, small, device)
            # The condition is false for NaN.
            if shape.torch_compile and result.error <= check.bound:
                result = error_to(method, method, small, device)
    except Exception as failure:
        if method.package is None:
            raise
        message = f"failed: {type(failure).__name__}: {' '.join(str(failure).split())[:200]}"
        return replace(check, refusal=message)
    check = replace(check, **result._asdict())
    if result.error <= check.bound:
        return check
    wrong = f"gradients wrong by {result.error:.2g} in {result.tensor}"
    over_all = f"by {result.error_of_all:.2g} over all (bound {check.bound:g})"
    return replace(check, refusal=f"{wrong}, {over_all}")


def error_to(reference: Method, method: Method, shape: Shape, device: str) -> GradientError:
    """Return the error of a method's gradients against those of a reference.

    Both take one step with equal weights, tokens and dropout; the reference is not compiled.
    """
    step = build(method, shape, device)
    right = build(reference, replace(shape, torch_compile=False), device)
    step.model.load_state_dict(right.model.state_dict())
    step(shape.tokens)
    right(shape.tokens)
    return compare_gradients(_gradients(step.model), _gradients(right.model))


def error_to_differences(method: Method, shape: Shape, device: str) -> GradientError:
    """Return the error of a method's gradients against differences of its loss.

    For each tensor p of n numbers with gradient g, in float64 and not compiled, the slope
    (loss(p + h u) - loss(p - h u)) / 2h along a random direction u of length 1 is compared with
    g u. An error d of g shows as d u, which is |d| / sqrt(n) in the mean square: times sqrt(n), it
    stands for |d|.
    """
    step = build(method, replace(shape, torch_compile=False, bf16=False), device)
    model = step.model.double()
    step(shape.tokens)
    gradients, right = _gradients(model), {}
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        direction = (direction / direction.norm()).to(device)
        slope = 0.0
        with torch.no_grad():
            for sign in (1, -1):
                parameter.add_(direction, alpha=sign * STEP)
                loss = step.loss(shape.tokens)
                parameter.sub_(direction, alpha=sign * STEP)
                assert loss is not None, "only a package has no loss"
                slope += sign * loss.item() / (2 * STEP)
        gradient = gradients.setdefault(name, torch.zeros_like(parameter))
        missing = slope - (gradient * direction).sum()
        right[name] = gradient + missing * math.sqrt(parameter.numel()) * direction
    return compare_gradients(gradients, right)


def compare_gradients(gradients: dict[str, Tensor], right: dict[str, Tensor]) -> GradientError:
    """Return the relative errors |a - b| / |b|; no gradient counts as 0, NaN as the worst."""
    differences, norms = {}, {}
    for name in sorted(gradients.keys() | right.keys()):
        a, b = gradients.get(name, torch.zeros(())), right.get(name, torch.zeros(()))
        differences[name], norms[name] = (a - b.to(a)).norm().item(), b.norm().item()
    floor = SMALLEST_SHARE * max(norms.values(), default=0.0)
    assert floor > 0, "a comparison of gradients needs a gradient"
    errors = {name: differences[name] / max(norms[name], floor) for name in differences}
    worst = max(errors, key=lambda name: math.inf if math.isnan(errors[name]) else errors[name])
    error_of_all = math.hypot(*differences.values()) / math.hypot(*norms.values())
    return GradientError(errors[worst], worst, error_of_all)


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}


def _name(method: Method) -> str:
    same = (name for name in METHODS.names() if METHODS[name] == method)
    return next(same, f"{method.model}, full backpropagation")
