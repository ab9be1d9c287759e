"""Layers on the positions of one segment, x_BND -> x_BND, without knowledge of other segments."""

from rmaat.layers.associative import AssociativeMemory
from rmaat.layers.block import EncoderBlock
from rmaat.layers.convolution import ShortConvolution
from rmaat.layers.dropout import apply_dropout, draw_dropout_masks
from rmaat.layers.embedding import TokenEmbedding, ValueEmbedding, sinusoidal_positions
from rmaat.layers.ngrams import NgramClassifier
from rmaat.layers.readout import READOUT_MASKS
from rmaat.layers.zero_linear import ZeroLinear

__all__ = [
    "READOUT_MASKS",
    "AssociativeMemory",
    "EncoderBlock",
    "NgramClassifier",
    "ShortConvolution",
    "TokenEmbedding",
    "ValueEmbedding",
    "ZeroLinear",
    "apply_dropout",
    "draw_dropout_masks",
    "sinusoidal_positions",
]
