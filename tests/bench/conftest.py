import pytest

from rmaat.bench.shape import Shape


@pytest.fixture
def tiny() -> Shape:
    """Four segments of 16 tokens, two rows."""
    return Shape(
        tokens=64,
        segment_length=16,
        batch=2,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
