"""How the gradient travels back over segments, as interchangeable objects. They know nothing of what a segment computes."""

from rmaat.backprop.base import Backprop, Recurrence, Step, Tensors
from rmaat.backprop.full import Full
from rmaat.backprop.replay import Replay
from rmaat.backprop.truncated import Truncated

__all__ = ["Backprop", "Full", "Recurrence", "Replay", "Step", "Tensors", "Truncated"]
