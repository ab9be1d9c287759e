"""An associative memory beside a layer. Axes: B batch, N positions, W that may write, D width, P features, E = D + 1."""

from torch import Tensor, nn

from rmaat.layers.zero import ZeroLinear
from rmaat.ops import associative_read, associative_write
from rmaat.settings import ModelSettings


class AssociativeMemory(nn.Module):
    """A memory that every position reads before a layer (arXiv 2407.04841).

    The layer's outputs at the memory positions, or at all positions, are written to it. If all write, the map of queries
    computes the keys too [C]: equal tokens then have equal keys and queries from the first step on.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width, size = settings.hidden_size, settings.associative_size
        self.query = nn.Linear(width, size, bias=False)
        self.key = nn.Linear(width, size, bias=False) if settings.associative_writers == "memory" else None
        # Nothing is written before training.
        self.value = ZeroLinear(width, width, bias=False)
        self.strength = nn.Linear(width, 1)

    def read(self, x_BND: Tensor, associations_BPE: Tensor) -> Tensor:
        """Return what the positions recall, (B, N, D)."""
        return associative_read(self.query(x_BND), associations_BPE)

    def write(self, x_BWD: Tensor, associations_BPE: Tensor, writes_BW: Tensor) -> Tensor:
        """Return the associations after the write, (B, P, E); `writes_BW`, (B, W) or (B, 1), says which positions take part."""
        # The key 0 writes nothing. Choosing between the matrices afterwards would copy all of them.
        to_key = self.query if self.key is None else self.key
        key_BWd = to_key(x_BWD).masked_fill(~writes_BW[..., None], 0)
        strength_BW1 = self.strength(x_BWD).sigmoid()
        return associative_write(key_BWd, self.value(x_BWD), strength_BW1, associations_BPE)
