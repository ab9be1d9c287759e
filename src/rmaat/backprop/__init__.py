"""The ways for gradients to go back over segments, as interchangeable objects.

A model calls such an object with its `Recurrence`, the loop over segments as data. Nothing in this
room knows what a segment computes. `reference.py` is replay in its shortest form, to read first.
"""

from rmaat.backprop.base import Backprop, Recurrence, Step, Tensors
from rmaat.backprop.checkpoint import Checkpoint
from rmaat.backprop.full import Full
from rmaat.backprop.replay import Replay
from rmaat.backprop.truncated import Truncated

__all__ = ["Backprop", "Checkpoint", "Full", "Recurrence", "Replay", "Step", "Tensors", "Truncated"]
