"""A linear map that is initialised with 0."""

from torch import nn
from transformers import initialization as init


class ZeroLinear(nn.Linear):
    """A linear map whose weights and biases start at 0, so that its output starts at 0."""

    def initialise(self) -> None:
        """Set weights and biases to 0, except those that a checkpoint has filled."""
        init.zeros_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)
