"""The operators: pure functions on tensors, without parameters or segments.

Each is defined in the file of its attention, or of the associative memory. Import it from here.
"""

from rmaat.attention.astro import astromorphic_attention, unit_read_scale
from rmaat.attention.decay import decayed_sum, relative_positions
from rmaat.attention.features import feature_map
from rmaat.attention.linear import kernel_attention, linear_attention
from rmaat.attention.linformer import linformer_attention
from rmaat.attention.nystromformer import nystrom_attention
from rmaat.attention.performer import orthogonal_directions, performer_attention
from rmaat.attention.s4d import s4d_kernel, two_sided_convolution
from rmaat.attention.softmax import softmax_attention
from rmaat.attention.vla import variational_linear_attention
from rmaat.layers.associative import associative_read, associative_write, delta_read, delta_write

__all__ = [
    "associative_read",
    "associative_write",
    "astromorphic_attention",
    "decayed_sum",
    "delta_read",
    "delta_write",
    "feature_map",
    "kernel_attention",
    "linear_attention",
    "linformer_attention",
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
