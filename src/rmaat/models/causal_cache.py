"""The state of a causal model between tokens: of constant size, however long the text is.

Axes: B batch, M memory tokens, D width, L layers, K key features of the associative memory, P
positions of a segment.
"""

from dataclasses import dataclass

from torch import Tensor

from rmaat.attention.causal import Tensors


@dataclass
class RmaatCache:
    """The state of a causal RMAAT after the text so far; `generate` passes it as past_key_values.

    Attributes:
        memory: (B, M, D), from the segments before the current one.
        associations: (B, L, K, E), likewise.
        segment: (B,) int64, the number of segments before the current one.
        position: (B,) int64, the tokens of the current segment so far.
        layers: what each layer carries within the current segment.
        outputs: (B, L, P, D), the layers' outputs in the current segment so far, if all positions write
            to the associative memory; else P is 0.
        shared: `SegmentEncoder.shared()` of the model.
        tokens_per_segment: of the model.
    """

    memory: Tensor
    associations: Tensor
    segment: Tensor
    position: Tensor
    layers: list[Tensors]
    outputs: Tensor
    shared: Tensors
    tokens_per_segment: int

    is_compileable = False

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the tokens of the longest row so far."""
        return int((self.segment * self.tokens_per_segment + self.position).max())

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Replace each row by the row `beam_idx` of it, as a search over beams asks for."""
        self.memory, self.associations, self.segment, self.position, self.outputs = (
            x.index_select(0, beam_idx)
            for x in (self.memory, self.associations, self.segment, self.position, self.outputs)
        )
        self.layers = [tuple(x.index_select(0, beam_idx) for x in layer) for layer in self.layers]

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors."""
        tensors = [self.memory, self.associations, self.outputs, *(x for layer in self.layers for x in layer)]
        return sum(x.nbytes for x in tensors)
