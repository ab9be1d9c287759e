"""Checks of the numbers in settings. Each error names the setting and its value."""

from rmaat.errors import UserError


def at_least(name: str, value: int, least: int) -> None:
    """Raise `UserError` unless the value is a whole number >= least."""
    if not isinstance(value, int) or value < least:
        raise UserError(f"{name} must be a whole number >= {least}, not {value!r}")


def odd(name: str, value: int) -> None:
    """Raise `UserError` unless the value is an odd whole number >= 1."""
    at_least(name, value, 1)
    if value % 2 == 0:
        raise UserError(f"{name} must be odd, to have a middle, not {value}")


def positive(name: str, value: float) -> None:
    """Raise `UserError` unless the value is positive and finite."""
    if not 0 < value < float("inf"):
        raise UserError(f"{name} must be positive and finite, not {value}")
