"""The astrocyte model and the retention factors that its long-term process gives.

Start with `retention.py`, which holds the formula of the retention factor. `model.py` holds the
equations, `simulate.py` solves them, and `increments.py` measures the gain of each cycle. This
package does not import torch.
"""

from rmaat.astrocyte.model import LatchWarning, MacroModel
from rmaat.astrocyte.retention import NEED_TOTAL, SCHEDULES, log_increments, retention_factors
from rmaat.astrocyte.simulate import Simulation

__all__ = ["NEED_TOTAL", "SCHEDULES", "LatchWarning", "MacroModel", "Simulation", "log_increments", "retention_factors"]
