"""The astrocyte: what its long-term process says of how much memory to keep. Knows nothing of torch."""

from rmaat.astrocyte.model import LatchWarning, MacroModel

__all__ = ["LatchWarning", "MacroModel"]
