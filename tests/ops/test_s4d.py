"""The diagonal state space as a convolution against its recurrence, step by step."""

import pytest
import torch

from rmaat.ops import s4d_kernel, two_sided_convolution


def parameters(width=3, states=4):
    generator = torch.Generator().manual_seed(0)

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(shape, dtype=torch.float64, generator=generator)

    return (
        uniform(-5, -1, width),
        uniform(-1, 0.5, width, states),
        uniform(0, 12, width, states),
        uniform(-1, 1, 2, width, states, 2),
    )


@pytest.mark.parametrize("n", [1, 2, 29, 64])
def test_both_directions_are_recurrences(n):
    log_step, log_decay, frequency, readout = (x.requires_grad_() for x in parameters())
    u = torch.randn(2, 3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n), requires_grad=True)
    found = two_sided_convolution(u, s4d_kernel(log_step, log_decay, frequency, readout, n))

    rate = -log_decay.exp() + 1j * frequency
    power = (log_step.exp()[:, None] * rate).exp()
    held = (power - 1) / rate

    def run(inputs, weights):
        state, read = torch.zeros(2, 3, 4, dtype=torch.complex128), []
        for x in inputs:
            state = power * state + held * x[..., None]
            read.append((2 * weights * state).sum(-1).real)
        return read

    before = run(u.unbind(-1), torch.view_as_complex(readout[0]))
    after = run(u.flip(-1).unbind(-1), torch.view_as_complex(readout[1]))[::-1]
    # The backward state is read one step later: a position's own input is in the forward one.
    wanted = torch.stack([x + y for x, y in zip(before, [*after[1:], torch.zeros(2, 3)], strict=True)], -1)
    assert (found - wanted).norm() <= 1e-11 * wanted.norm()
    inputs = [log_step, log_decay, frequency, readout, u]
    cotangent = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    pairs = zip(
        torch.autograd.grad(found, inputs, cotangent), torch.autograd.grad(wanted, inputs, cotangent), strict=True
    )
    for one, other in pairs:
        assert (one - other).norm() <= 1e-9 * other.norm()


def test_a_long_kernel_in_float32_is_that_of_float64():
    given = parameters()
    wanted = s4d_kernel(*given, 4096)
    found = s4d_kernel(*(x.float() for x in given), 4096).double()
    assert (found - wanted).norm() < 2e-3 * wanted.norm()
