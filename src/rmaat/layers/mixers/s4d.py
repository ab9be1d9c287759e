"""A diagonal state space as a mixer. Axes: B batch, N positions, D width, n/2 complex states of a feature."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, glu
from transformers import initialization as init

from rmaat.layers.mixers.base import Mixer
from rmaat.ops import s4d_kernel, two_sided_convolution
from rmaat.settings import ModelSettings

FASTEST_STEP, SLOWEST_STEP = 0.1, 0.001
"""Steps Delta at the start are log-uniform between these (arXiv 2206.11893)."""


class S4DMixer(Mixer):
    """S4D-Lin (arXiv 2206.11893), in both directions, then GELU and a gated linear unit.

    Each feature has n/2 complex states A_k = -1/2 + i pi k at the start, a step Delta and one readout C a direction; B is 1.
    [C]: all parameters share the run's learning rate and weight decay, where the original lowers them for A and Delta.
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
