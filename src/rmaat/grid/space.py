"""The space of a search: the values that each searched setting may have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rmaat.errors import UserError
from rmaat.grid.cells import SET_BY_THE_GRID, WITHOUT_EFFECT, typed
from rmaat.presets import yaml_word
from rmaat.training.config import check_key, check_layer

BUDGET = frozenset({"max_steps", "num_train_epochs", "eval_examples", "test_examples"})

FIXED = SET_BY_THE_GRID | WITHOUT_EFFECT | BUDGET | {"data_seed"}
"""Settings that all trials have in common, so that their accuracies can be compared."""

DECADE = 10.0
"""An interval of positive numbers is logarithmic from this ratio of its ends on."""

FORM = "write name=low:high, or name=value,value,..."


@dataclass(frozen=True)
class Interval:
    """The numbers from `low` to `high`, both included: whole ones if the ends are whole."""

    low: float
    high: float

    @property
    def logarithmic(self) -> bool:
        """Whether the logarithm is drawn uniformly: for positive floats over a decade or more."""
        # Rounded, because 0.0007 / 0.00007 may be just below 10.
        ratio = self.high / self.low if self.low > 0 else 0.0
        return isinstance(self.low, float) and round(ratio, 9) >= DECADE

    @property
    def extremes(self) -> tuple[Any, ...]:
        """The values to check before a search: those between them have the same type and range."""
        return self.low, self.high

    def __contains__(self, value: object) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high  # type: ignore[operator]

    def __str__(self) -> str:
        return f"{self.low}:{self.high}"


@dataclass(frozen=True)
class Choice:
    """A few values, such as words or numbers."""

    values: tuple[Any, ...]

    @property
    def extremes(self) -> tuple[Any, ...]:
        """The values to check before a search: all of them."""
        return self.values

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return ",".join(map(yaml_word, self.values))


Space = Mapping[str, Interval | Choice]
"""By the name of a setting."""


def around(rate: float) -> Interval:
    """Return the default interval of a learning rate: from a tenth to ten times of it."""
    return Interval(rate / 10, rate * 10)


def parse_space(texts: Iterable[str]) -> dict[str, Interval | Choice]:
    """Read the settings to search and their values.

    Args:
        texts: `name=low:high` for an interval, `name=value,value,...` for a choice.

    Raises:
        UserError: for another form, an unknown setting, one that all trials have in common, one
            that occurs twice, a value of another type or outside the setting's range, and an
            interval whose low end is not below its high end.
    """
    space: dict[str, Interval | Choice] = {}
    for text in texts:
        name, equals, values = (part.strip() for part in text.partition("="))
        where = f"--space '{text}'"
        if not equals or not name or not values:
            raise UserError(f"{where} is not a space; {FORM}")
        check_key(name, where)
        if name in FIXED:
            raise UserError(f"{where}: {name} is the same in all trials; search another setting")
        if name in space:
            raise UserError(f"{where}: --space has {name} twice")
        space[name] = _parse_values(name, values, where)
    return space


def _parse_values(name: str, text: str, where: str) -> Interval | Choice:
    separator = "," if "," in text else ":"
    values = [_value(name, part.strip(), where) for part in text.split(separator)]
    if len(values) < 2:
        raise UserError(f"{where} has one value only; give it as --{name}, or {FORM}")
    if separator == ",":
        if any(isinstance(value, dict) for value in values):
            raise UserError(f"{where}: the values of a choice are numbers and words")
        return Choice(tuple(dict.fromkeys(values)))
    if len(values) > 2:
        raise UserError(f"{where} has more than two ends; {FORM}")
    low, high = values
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in values):
        raise UserError(f"{where}: the ends of an interval are numbers; write name=value,value,...")
    if not low < high:
        raise UserError(f"{where}: the low end {low} must be below the high end {high}")
    return Interval(low, high)


def _value(name: str, text: str, where: str) -> Any:
    return check_layer(typed({name: text}, where), where)[name]
