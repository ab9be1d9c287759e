"""Diagonal state spaces as convolutions (S4D, arXiv 2206.11893).

Axes: B batch, D features, N positions, k complex states of a feature (half of the state size: the other half is conjugate).
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from rmaat.ops.precision import at_least_float32, no_autocast


def s4d_kernel(log_step: Tensor, log_decay: Tensor, frequency: Tensor, readout: Tensor, length: int) -> Tensor:
    r"""What an impulse leaves after 0 ... N - 1 steps, for any number of readouts.

    $K_t = 2\,\mathrm{Re} \sum_k C_k \frac{e^{\Delta A_k} - 1}{A_k} e^{t \Delta A_k}$: the state space $x' = A x + u$,
    $y = 2\,\mathrm{Re}\, C x$ with the input held over each step, A being -exp(log_decay) + i frequency.

    Args:
        log_step: (D,), log Delta.
        log_decay: (D, k), log of minus the real part of A.
        frequency: (D, k), the imaginary part of A.
        readout: (R, D, k, 2), real and imaginary part of C.
        length: N.

    Returns:
        (R, D, N), at least float32. Powers are products of two of about sqrt(N), so the memory is O(D k sqrt(N)).
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
    """y_t = sum_{s <= t} K1_{t-s} u_s + sum_{s > t} K2_{s-t-1} u_s, by the fast Fourier transform.

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
