"""Modules on the positions of one segment, x_BND -> x_BND. They know nothing of segments or of memory."""

from rmaat.layers.associative import AssociativeMemory
from rmaat.layers.block import EncoderBlock
from rmaat.layers.convolution import ShortConvolution
from rmaat.layers.dropout import apply_dropout, draw_keep_masks
from rmaat.layers.embedding import TokenEmbedding, ValueEmbedding, sinusoidal_positions
from rmaat.layers.readout import READOUT_SUMS
from rmaat.layers.zero import ZeroLinear

__all__ = [
    "READOUT_SUMS",
    "AssociativeMemory",
    "EncoderBlock",
    "ShortConvolution",
    "TokenEmbedding",
    "ValueEmbedding",
    "ZeroLinear",
    "apply_dropout",
    "draw_keep_masks",
    "sinusoidal_positions",
]
