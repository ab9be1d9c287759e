"""The diagonal state space as a convolution against its recurrence, step by step."""

import pytest
import torch
from torch import nn

from rmaat.attention.s4d import reference_s4d
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
def test_it_is_its_reference(assert_same, n):
    """The convolution is two recurrences."""
    u = torch.randn(2, 3, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))

    def convolved(u, *state_space):
        return two_sided_convolution(u, s4d_kernel(*state_space, n))

    assert_same(convolved, reference_s4d, (u, *parameters()), 1e-9)


def test_a_long_kernel_in_float32_is_that_of_float64():
    given = parameters()
    wanted = s4d_kernel(*given, 4096)
    found = s4d_kernel(*(x.float() for x in given), 4096).double()
    assert (found - wanted).norm() < 2e-3 * wanted.norm()


def test_the_mixer_is_two_recurrences_a_skip_and_a_gate(make_mixer, positions, mask):
    mixer, u = make_mixer("s4d"), positions[1:, :6].mT
    mixed = reference_s4d(u, mixer.log_step, mixer.log_decay, mixer.frequency, mixer.readout)
    mixed = mixed + mixer.skip[:, None] * u
    value, gate = mixer.output(nn.functional.gelu(mixed.mT)).chunk(2, -1)
    found = mixer(positions, mask, mixer.shared())[1:, :6]
    torch.testing.assert_close(found, value * gate.sigmoid(), rtol=1e-9, atol=1e-11)
