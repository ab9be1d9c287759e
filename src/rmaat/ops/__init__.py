"""Pure functions on tensors. They know nothing of parameters or segments."""

from rmaat.ops.associative import associative_read, associative_write
from rmaat.ops.astromorphic import astromorphic_attention, unit_read_scale
from rmaat.ops.decay import decayed_sum, relative_positions
from rmaat.ops.features import feature_map
from rmaat.ops.linear import kernel_attention, linear_attention
from rmaat.ops.nystrom import nystrom_attention
from rmaat.ops.performer import orthogonal_directions, performer_attention
from rmaat.ops.s4d import s4d_kernel, two_sided_convolution
from rmaat.ops.softmax import softmax_attention
from rmaat.ops.vla import variational_linear_attention

__all__ = [
    "associative_read",
    "associative_write",
    "astromorphic_attention",
    "decayed_sum",
    "feature_map",
    "kernel_attention",
    "linear_attention",
    "nystrom_attention",
    "orthogonal_directions",
    "performer_attention",
    "relative_positions",
    "s4d_kernel",
    "softmax_attention",
    "two_sided_convolution",
    "unit_read_scale",
    "variational_linear_attention",
]
