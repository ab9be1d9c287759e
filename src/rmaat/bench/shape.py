"""The size of the model and the batch, equal for all methods. Knows nothing of torch."""

from dataclasses import dataclass, replace
from typing import Any

from rmaat.errors import UserError
from rmaat.settings import ModelSettings

NUM_LABELS = 2
VOCAB_SIZE = 256
SHARED_SETTINGS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("hidden_dropout_prob", "num_memory_tokens"),
)
"""Fields of a shape that are settings of a model."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Size of the model and the batch; the defaults are the reference shape.

    Args:
        tokens: tokens of one sequence, a multiple of segment_length.
        segment_length: N_seg, tokens of one segment.
        batch: sequences in the batch.
        hidden_size: width D of tokens and memory.
        num_hidden_layers: encoder layers.
        num_attention_heads: heads; must divide hidden_size.
        intermediate_size: width inside the feed-forward part.
        hidden_dropout_prob: dropout on embeddings and after attention and feed-forward.
        num_memory_tokens: memory tokens M, at least 1.
        bf16: bfloat16 autocast; else float32.
        torch_compile: compile the step of a segment; other packages run as they are.
    """

    tokens: int = 8192
    segment_length: int = 512
    batch: int = 8
    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 512
    hidden_dropout_prob: float = 0.1
    num_memory_tokens: int = 1
    bf16: bool = False
    torch_compile: bool = False

    @property
    def segments(self) -> int:
        """T of one sequence."""
        return self.tokens // self.segment_length

    def check(self) -> None:
        """Raise `UserError` if the shape contradicts itself or leaves its ranges."""
        for name in ("tokens", "segment_length", "batch", "num_memory_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be >= 1, not {getattr(self, name)}")
        if self.tokens % self.segment_length:
            below = max(self.segments, 1) * self.segment_length
            raise UserError(
                f"tokens {self.tokens} is not a multiple of segment_length {self.segment_length}; "
                f"near multiples: {below}, {below + self.segment_length}"
            )
        ModelSettings(**self.settings()).check_model()

    def settings(self) -> dict[str, Any]:
        """Return the settings of this project's models, below those that a model fixes.

        The readout is over all segments, so that each has a gradient large enough to compare.
        """
        settings = {name: getattr(self, name) for name in SHARED_SETTINGS}
        lengths = {"max_seq_len": self.tokens, "num_segments": self.segments}
        return settings | lengths | {"readout": "running_mean"}

    def small(self) -> "Shape":
        """Return a shape of the same kind whose four segments take milliseconds."""
        width = 8 * self.num_attention_heads
        layers = min(self.num_hidden_layers, 2)
        small = replace(self, tokens=128, segment_length=32, batch=2, num_hidden_layers=layers)
        return replace(small, hidden_size=width, intermediate_size=2 * width)
