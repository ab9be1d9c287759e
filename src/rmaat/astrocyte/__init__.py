"""The astrocyte: what its long-term process says of how much memory to keep. Knows nothing of torch."""

from rmaat.astrocyte.model import LatchWarning, MacroModel
from rmaat.astrocyte.retention import NEED_TOTAL, SCHEDULES, log_increments, retention_factors
from rmaat.astrocyte.simulate import Simulation

__all__ = ["NEED_TOTAL", "SCHEDULES", "LatchWarning", "MacroModel", "Simulation", "log_increments", "retention_factors"]
