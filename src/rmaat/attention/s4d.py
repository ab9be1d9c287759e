"""Diagonal state spaces in both directions, as convolutions (S4D, arXiv 2206.11893).

Axes: B batch, D features, N positions, k complex states of a feature (half of the state size: the
other half is conjugate), R readouts.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, glu, pad
from transformers import initialization as init

from rmaat.attention.base import Mixer
from rmaat.attention.precision import at_least_float32, no_autocast
from rmaat.settings import ModelSettings


def reference_s4d(
    u: Tensor,
    log_step: Tensor,
    log_decay: Tensor,
    frequency: Tensor,
    readout: Tensor,
) -> Tensor:
    """Run both recurrences step by step: x_t = e^(Delta A) x_(t-1) + (e^(Delta A) - 1) / A u_t.

    A position reads 2 Re C_1 x of the inputs up to its own, and 2 Re C_2 x of those behind it. u
    and the result are (B, D, N); the other arguments are those of `s4d_kernel`, with R = 2.
    """
    rate_Dk = torch.complex(-log_decay.exp(), frequency)
    power_Dk = (log_step.exp()[:, None] * rate_Dk).exp()
    before_Dk, after_Dk = torch.view_as_complex(readout)
    forward_BDk = backward_BDk = torch.zeros_like(u[..., :1] * rate_Dk)
    positions = range(u.shape[-1])
    read_before, read_after = [], []
    for t in positions:
        forward_BDk = power_Dk * forward_BDk + (power_Dk - 1) / rate_Dk * u[..., t, None]
        read_before.append(2 * (before_Dk * forward_BDk).sum(-1).real)
    for t in reversed(positions):
        read_after.append(2 * (after_Dk * backward_BDk).sum(-1).real)
        backward_BDk = power_Dk * backward_BDk + (power_Dk - 1) / rate_Dk * u[..., t, None]
    return torch.stack(read_before, -1) + torch.stack(read_after[::-1], -1)


def s4d_kernel(log_step: Tensor, log_decay: Tensor, frequency: Tensor, readout: Tensor, length: int) -> Tensor:
    r"""Return what an impulse leaves after 0 ... N - 1 steps, for any number of readouts.

    $K_t = 2\,\mathrm{Re} \sum_k C_k \frac{e^{\Delta A_k} - 1}{A_k} e^{t \Delta A_k}$: the state
    space $x' = A x + u$, $y = 2\,\mathrm{Re}\, C x$ with the input held over each step, A being
    -exp(log_decay) + i frequency.

    Args:
        log_step: (D,), log Delta.
        log_decay: (D, k), log of minus the real part of A.
        frequency: (D, k), the imaginary part of A.
        readout: (R, D, k, 2), real and imaginary part of C.
        length: N.

    Returns:
        (R, D, N), at least float32. Powers are products of two of about sqrt(N), so the memory is
        O(D k sqrt(N)).
    """
    with no_autocast(log_step):
        step_D1 = at_least_float32(log_step).exp()[:, None]
        rate_Dk = torch.complex(-at_least_float32(log_decay).exp(), at_least_float32(frequency))
        weight_RDk = (
            torch.view_as_complex(at_least_float32(readout).contiguous()) * torch.expm1(step_D1 * rate_Dk) / rate_Dk
        )
        inner = math.isqrt(length - 1) + 1
        outer = -(-length // inner)
        exponent_Dk1 = (step_D1 * rate_Dk)[..., None]
        steps = torch.arange(max(inner, outer), device=log_step.device, dtype=step_D1.dtype)
        near_Dkb = torch.exp(exponent_Dk1 * steps[:inner])
        far_Dka = torch.exp(exponent_Dk1 * (inner * steps[:outer]))
        kernel_RDab = (weight_RDk[..., None] * far_Dka).mT @ near_Dkb
        return 2 * kernel_RDab.real.flatten(-2)[..., :length]


def two_sided_convolution(u: Tensor, kernel: Tensor) -> Tensor:
    """Return y_t = sum_{s <= t} K1_{t-s} u_s + sum_{s > t} K2_{s-t-1} u_s, by the fast Fourier transform.

    Args:
        u: (B, D, N).
        kernel: (2, D, N), K1 and K2.

    Returns:
        (B, D, N), the dtype of u, computed in at least float32 under any autocast, in O(N log N).
    """
    with no_autocast(u):
        n = u.shape[-1]
        before_DN, after_DN = at_least_float32(kernel)
        # On a circle of 2 N positions, position 2 N - 1 is the one before 0.
        circle = pad(before_DN, (0, n)) + pad(after_DN.flip(-1), (n, 0))
        spectrum = torch.fft.rfft(at_least_float32(u), n=2 * n) * torch.fft.rfft(circle)
        return torch.fft.irfft(spectrum, n=2 * n)[..., :n].to(u.dtype)


FASTEST_STEP, SLOWEST_STEP = 0.1, 0.001
"""Steps Delta at the start are log-uniform between these (arXiv 2206.11893)."""


class S4DMixer(Mixer):
    """S4D-Lin (arXiv 2206.11893), in both directions, then GELU and a gated linear unit.

    Each feature has n/2 complex states A_k = -1/2 + i pi k at the start, a step Delta and one
    readout C a direction; B is 1. [C]: all parameters share the run's learning rate and weight
    decay, where the original lowers them for A and Delta.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        width, states = settings.hidden_size, settings.state_size // 2
        self.num_positions = settings.num_positions
        self.log_step = nn.Parameter(torch.empty(width))
        self.log_decay = nn.Parameter(torch.empty(width, states))
        self.frequency = nn.Parameter(torch.empty(width, states))
        self.readout = nn.Parameter(torch.empty(2, width, states, 2))
        self.skip = nn.Parameter(torch.empty(width))
        self.output = nn.Linear(width, 2 * width)

    def initialise(self) -> None:
        """S4D-Lin's A, C of variance 1 and log-uniform steps."""
        init.uniform_(self.log_step, math.log(SLOWEST_STEP), math.log(FASTEST_STEP))
        init.constant_(self.log_decay, math.log(0.5))
        harmonics = math.pi * torch.arange(self.frequency.shape[1], dtype=torch.float64)
        init.copy_(self.frequency, harmonics.expand(self.frequency.shape))
        init.normal_(self.readout, std=0.5**0.5)
        init.normal_(self.skip)

    def shared(self) -> Tensor:
        """The kernels of both directions, (2, D, N)."""
        return s4d_kernel(self.log_step, self.log_decay, self.frequency, self.readout, self.num_positions)

    def forward(self, x_BND: Tensor, mask_BN: Tensor, shared: Tensor | None) -> Tensor:
        """Convolve each feature with its kernels; a masked position adds nothing."""
        assert shared is not None
        u_BDN = x_BND.masked_fill(~mask_BN[..., None], 0).mT
        y_BDN = two_sided_convolution(u_BDN, shared[..., : u_BDN.shape[-1]]) + self.skip[:, None] * u_BDN
        return glu(self.output(gelu(y_BDN.mT)), -1)
