"""Variational linear attention by chunks against its recurrence, token by token."""

import pytest
import torch

from rmaat.ops import variational_linear_attention
from rmaat.ops.vla import CHUNK


def token_by_token(q, k, v, ridge, length):
    """One head: q, k (N, m), v (N, d); tokens from `length` on write nothing."""

    def phi(x):
        return torch.where(x > 0, x + 1, x.exp())

    n, m = k.shape
    inverse = torch.eye(m, dtype=k.dtype) / ridge
    state, total, count = torch.zeros(v.shape[1], m, dtype=k.dtype), torch.zeros(m, dtype=k.dtype), 0
    read = []
    for t in range(n):
        if t < length:
            key = phi(k[t]) / phi(k[t]).norm()
            met = inverse @ key
            inverse = inverse - torch.outer(met, met) / (1 + key @ met)
            write = inverse @ key / (inverse @ key).norm()
            state = state + torch.outer(v[t] - state @ key, write)
            total, count = total + key, count + 1
        read.append(state @ phi(q[t]) / (total / count @ phi(q[t])))
    return torch.stack(read)


@pytest.mark.parametrize("n", [1, 5, CHUNK, CHUNK + 1, 2 * CHUNK + 37])
@pytest.mark.parametrize("ridge", [1.0, 0.05])
def test_chunks_are_the_recurrence_and_so_are_their_gradients(draw, n, ridge):
    lengths = [n, max(1, n // 2)]
    mask = torch.arange(n) < torch.tensor(lengths)[:, None]
    inputs = [x.requires_grad_() for x in draw(n, heads=2)]
    found = variational_linear_attention(*inputs, ridge, mask)
    wanted = torch.stack(
        [
            torch.stack([token_by_token(*(x[b, h] for x in inputs), ridge, lengths[b]) for h in range(2)])
            for b in range(2)
        ]
    )
    assert (found - wanted).norm() <= 1e-10 * wanted.norm()
    cotangent = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pairs = zip(
        torch.autograd.grad(found, inputs, cotangent), torch.autograd.grad(wanted, inputs, cotangent), strict=True
    )
    for one, other in pairs:
        assert (one - other).norm() <= 1e-8 * other.norm() + 1e-13


def test_float32_stays_near_float64_over_a_long_sequence(draw):
    inputs = draw(2000, m=16)
    wanted = variational_linear_attention(*inputs)
    found = variational_linear_attention(*(x.float() for x in inputs)).double()
    assert (found - wanted).norm() < 1e-3 * wanted.norm()


def test_a_row_without_a_token_is_finite_both_ways(draw):
    inputs = [x.float().requires_grad_() for x in draw(5)]
    variational_linear_attention(*inputs, 1.0, torch.zeros(2, 5, dtype=torch.bool)).sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in inputs)
