"""The astrocyte: what its long-term process says of how much memory to keep. Knows nothing of torch."""

from rmaat.astrocyte.retention import retention_factors

__all__ = ["retention_factors"]
