"""A linear map that begins as 0."""

from torch import nn
from transformers import initialization as init


class ZeroLinear(nn.Linear):
    """A linear map whose weights and biases start at 0, so that what it adds starts at 0."""

    def initialise(self) -> None:
        """Set all of it to 0, except what a checkpoint has filled."""
        init.zeros_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)
