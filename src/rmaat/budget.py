"""`Budget`, the value of the setting `replay_budget`: memory for segments that replay keeps alive.

This module does not import torch.
"""

from dataclasses import dataclass

from rmaat.errors import UserError
from rmaat.machine.units import SIZE, parse_bytes

FORMS = f"{SIZE}, a fraction of the free memory such as 0.5, or a whole number of segments >= 1"


@dataclass(frozen=True)
class Budget:
    """A limit on the segments that stay alive. One attribute is set, the others are None.

    Attributes:
        segments: the number of segments, >= 1; 1 is the minimum, the last segment alone.
        size: bytes for the activations of the segments.
        fraction: share of the memory that is free at the first training step, in (0, 1].
    """

    segments: int | None = None
    size: int | None = None
    fraction: float | None = None

    @classmethod
    def parse(cls, value: str | float | None) -> "Budget":
        """Return the budget that a value of the setting describes.

        Args:
            value: None (the minimum), a whole number of segments, a fraction in (0, 1], or a size
                with a unit, such as '2GiB'.

        Raises:
            UserError: for any other value.
        """
        if value is None:
            return cls(segments=1)
        if isinstance(value, str):
            return cls(size=parse_bytes("replay_budget", value, FORMS))
        if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
            return cls(segments=value)
        if isinstance(value, float) and 0 < value <= 1:
            return cls(fraction=value)
        raise UserError(f"replay_budget {value!r} is not {FORMS}")

    def divided(self, calls: int) -> "Budget":
        """Return the budget of each of several calls that share one backward pass.

        Sizes and fractions are divided by the number of calls. A number of segments is not.
        """
        if self.segments is not None:
            return self
        if self.size is not None:
            return Budget(size=self.size // calls)
        assert self.fraction is not None
        return Budget(fraction=self.fraction / calls)
