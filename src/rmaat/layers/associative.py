"""An associative memory beside a layer. Axes: B batch, N positions, M written positions, D width, P features, E = D + 1."""

from torch import Tensor, nn

from rmaat.layers.zero import ZeroLinear
from rmaat.ops import associative_read, associative_write
from rmaat.settings import ModelSettings


class AssociativeMemory(nn.Module):
    """A memory that every position reads before a layer (arXiv 2407.04841).

    It is written from the layer's outputs at the memory positions.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width, size = settings.hidden_size, settings.associative_size
        self.query = nn.Linear(width, size, bias=False)
        self.key = nn.Linear(width, size, bias=False)
        # Nothing is written before training.
        self.value = ZeroLinear(width, width, bias=False)
        self.strength = nn.Linear(width, 1)

    def read(self, x_BND: Tensor, associations_BPE: Tensor) -> Tensor:
        """Return what the positions recall, (B, N, D)."""
        return associative_read(self.query(x_BND), associations_BPE)

    def write(self, memory_BMD: Tensor, associations_BPE: Tensor, active_B1: Tensor) -> Tensor:
        """Return the associations after the memory positions' write, (B, P, E); as they were in rows that are not active."""
        # The key 0 writes nothing. Choosing between the matrices afterwards would copy all of them.
        key_BMd = self.key(memory_BMD).masked_fill(~active_B1[..., None], 0)
        strength_BM1 = self.strength(memory_BMD).sigmoid()
        return associative_write(key_BMd, self.value(memory_BMD), strength_BM1, associations_BPE)
