"""How much memory replay may use to keep segments alive: what the setting `replay_budget` can say. Knows nothing of torch."""

from dataclasses import dataclass

from rmaat.errors import UserError
from rmaat.machine.units import SIZE, parse_bytes

FORMS = f"{SIZE}, a fraction of the free memory such as 0.5, or a whole number of segments >= 1"


@dataclass(frozen=True)
class Budget:
    """One of the three, the others None.

    Attributes:
        segments: segments kept alive, >= 1; 1 is the floor, the last segment alone.
        size: bytes for what the kept segments hold.
        fraction: of the memory that is free when the first sequence is trained on, in (0, 1].
    """

    segments: int | None = None
    size: int | None = None
    fraction: float | None = None

    @classmethod
    def parse(cls, value: str | float | None) -> "Budget":
        """Read the setting: None (the floor), a whole number (segments), a number in (0, 1] or a size with a unit.

        Raises:
            UserError: for anything else.
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

    def shared_by(self, calls: int) -> "Budget":
        """The part of one of so many calls before one backward pass; a number of segments is each call's own."""
        if self.segments is not None:
            return self
        if self.size is not None:
            return Budget(size=self.size // calls)
        assert self.fraction is not None
        return Budget(fraction=self.fraction / calls)
