"""Diagonal state spaces in both directions, as convolutions (S4D, arXiv 2206.11893).

Axes: B batch, D features, N positions, k complex states of a feature (half of the state size: the
other half is conjugate), R readouts; in causal pieces C positions of a block, R rows with indices of
their own (B, or 1 if all rows have the same).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, glu, pad
from transformers import initialization as init

from rmaat.attention.base import CausalMixer
from rmaat.attention.causal import BLOCK, CausalPositions, Tensors
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


def causal_s4d(
    u: Tensor,
    log_step: Tensor,
    log_decay: Tensor,
    frequency: Tensor,
    readout: Tensor,
    kernel: Tensor,
    positions: CausalPositions,
    carried: Tensors,
) -> tuple[Tensor, Tensors]:
    """Return y_i = sum_{j <= i} K_{i-j} u_j over the inputs of the segment, and the state for the next piece.

    i and j are the indices of the positions. Pieces whose rows share their places come in the order
    of the indices.

    Args:
        u: (B, N, D), the piece; 0 at positions that are not in use.
        log_step, log_decay, frequency: as in `s4d_kernel`.
        readout: (D, k, 2).
        kernel: (D, P), that of `readout`, for all distances in a segment.
        positions: those of the piece.
        carried: the state (B, D, k, 2) after an index of the segment, and the index (B,).

    Returns:
        (B, N, D) and the tensors to carry, in at least float32 under any autocast, in O(N BLOCK).
    """
    with no_autocast(u):
        rate_Dk = torch.complex(-at_least_float32(log_decay).exp(), at_least_float32(frequency))
        exponent_Dk = at_least_float32(log_step).exp()[:, None] * rate_Dk
        input_Dk, readout_Dk = torch.expm1(exponent_Dk) / rate_Dk, _complex(readout)
        u_BND, outputs = at_least_float32(u), []
        for start in range(0, u.shape[1], BLOCK):
            u_BCD, block = u_BND[:, start : start + BLOCK], positions.block(start, min(start + BLOCK, u.shape[1]))
            state_BDk, last_B = _complex(carried[0]), carried[1]
            index_RC, first_R1 = block.index, block.index[:, :1]
            distance_RCC = index_RC[:, :, None] - index_RC[:, None]
            within_DRCC = kernel[:, distance_RCC.clamp_min(0)] * (distance_RCC >= 0)
            # 1. Inputs before the block: age the state to the block's first index, then let it fade along
            # the block.
            waited_BDk = state_BDk * _powers(exponent_Dk, first_R1 - last_B[:, None])[:, 0]
            faded_RCDk = readout_Dk * _powers(exponent_Dk, index_RC - first_R1)
            before_BCD = 2 * torch.einsum("bdk,bcdk->bcd", waited_BDk, faded_RCDk.expand(len(u), -1, -1, -1)).real
            # 2. Inputs within the block. If all rows have the same places, one matrix serves all of them.
            same = len(index_RC) == 1
            within_BCD = (
                torch.einsum("dij,bjd->bid", within_DRCC[:, 0], u_BCD)
                if same
                else torch.einsum("dbij,bjd->bid", within_DRCC, u_BCD)
            )
            outputs.append(before_BCD + within_BCD)
            # 3. The state at the last index in use. Padding stands behind the tokens of a row, whose later
            # pieces go on where its tokens end.
            newest_R1 = index_RC[:, -1:] if same else index_RC.where(block.mask, 0).amax(1, keepdim=True)
            newest_B1 = torch.where(block.mask.any(1, keepdim=True), newest_R1, last_B[:, None])
            aged_BDk = state_BDk * _powers(exponent_Dk, newest_B1 - last_B[:, None])[:, 0]
            written_RCDk = input_Dk * _powers(exponent_Dk, newest_R1 - index_RC)
            new_BDk = torch.einsum("bcd,bcdk->bdk", u_BCD.to(written_RCDk), written_RCDk.expand(len(u), -1, -1, -1))
            carried = torch.view_as_real(aged_BDk + new_BDk), newest_B1[:, 0]
        return torch.cat(outputs, 1), carried


def _complex(x: Tensor) -> Tensor:
    """Return (..., 2) real numbers as complex ones."""
    return torch.view_as_complex(at_least_float32(x).contiguous())


def _powers(exponent_Dk: Tensor, steps_RC: Tensor) -> Tensor:
    """Return e^(steps exponent), (R, C, D, k); negative steps count as 0."""
    return torch.exp(steps_RC.clamp_min(0)[..., None, None] * exponent_Dk)


FASTEST_STEP, SLOWEST_STEP = 0.1, 0.001
"""Steps Delta at the start are log-uniform between these (arXiv 2206.11893)."""


class S4DMixer(CausalMixer):
    """S4D-Lin (arXiv 2206.11893), in both directions, then GELU and a gated linear unit.

    Causally the forward direction alone is left: nothing stands behind a prefix.

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
        return self._gated(two_sided_convolution(u_BDN, shared[..., : u_BDN.shape[-1]]).mT, u_BDN.mT)

    def _gated(self, y_BND: Tensor, u_BND: Tensor) -> Tensor:
        return glu(self.output(gelu(y_BND + self.skip * u_BND)), -1)

    def start(self, batch: int, like: Tensor) -> Tensors:
        """No input yet: the state (B, D, k, 2) is 0."""
        state = at_least_float32(like).new_zeros(batch, *self.frequency.shape, 2)
        return state, torch.zeros(batch, dtype=torch.int64, device=like.device)

    def advance(
        self, x_BND: Tensor, positions: CausalPositions, shared: Tensor | None, carried: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Convolve each feature with its forward kernel, beginning with the state of the piece before."""
        assert shared is not None
        u_BND = x_BND.masked_fill(~positions.mask[..., None], 0)
        space = self.log_step, self.log_decay, self.frequency, self.readout[0]
        y_BND, carried = causal_s4d(u_BND, *space, shared[0], positions, carried)
        return self._gated(y_BND.to(x_BND.dtype), u_BND), carried
