"""Pure functions on tensors. They know nothing of parameters or segments."""

from rmaat.ops.astromorphic import astromorphic_attention, feature_map
from rmaat.ops.decay import decayed_sum, relative_positions
from rmaat.ops.softmax import softmax_attention

__all__ = ["astromorphic_attention", "decayed_sum", "feature_map", "relative_positions", "softmax_attention"]
