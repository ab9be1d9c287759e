"""The types and ranges of settings, and their one check: for files, flags and Python alike.

A dataclass of settings annotates each field with its type and, in `Annotated`, with its range.
"""

import math
import re
from argparse import Action
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from rmaat.errors import UserError, did_you_mean, quoted

TEXT = "text"
NUMBERS = {int: "whole number", float: "number"}
_DESCRIPTIONS = {
    str: [TEXT],
    **{kind: [f"a {name}"] for kind, name in NUMBERS.items()},
    bool: ["true", "false"],
    NoneType: ["null"],
    dict: ["lines of 'key: value'"],
}

UNUSUAL = 10_000
"""Bounds from here on are limits of the machine: a message about another bound leaves them out."""


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may have: `least` to `most`, above `above`, odd or even."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    parity: Literal["odd", "even"] | None = None

    def check(self, name: str, value: float) -> None:
        """Raise `UserError` for a number outside the range."""
        if not (self.least <= value <= self.most and value > self.above):
            kind = f"a {NUMBERS[type(value)]}"
            raise UserError(f"{name} must be {kind} {self._words(value)}, not {quoted(value)}")
        if self.parity and value % 2 != (self.parity == "odd"):
            raise UserError(f"{name} must be {self.parity}, not {quoted(value)}")

    def _words(self, value: float) -> str:
        """Return the bounds, without an unusual one that the value does not exceed."""
        upper = f"at most {self.most:.10g}" if value > self.most or self.most < UNUSUAL else ""
        if self.above > -math.inf:
            return f"above {self.above:g} and {upper}" if upper else f"above {self.above:g}"
        if self.least == -math.inf:
            return upper
        return f"from {self.least:g} to {self.most:.10g}" if upper else f">= {self.least:g}"


@dataclass(frozen=True)
class OneOf:
    """The words that a setting may have."""

    words: tuple[str, ...]

    def check(self, name: str, value: str) -> None:
        """Raise `UserError`, naming the nearest word, for another word."""
        if value not in self.words:
            known = did_you_mean(value, self.words)
            raise UserError(f"{name} {quoted(value)} is not one of its values; {known}")


LARGEST_INT = 2**31 - 1
"""Lengths, steps and counts fit in 32 bits."""

Count = Annotated[int, Range(0, LARGEST_INT)]
Length = Annotated[int, Range(1, LARGEST_INT)]
Width = Annotated[int, Range(1, 2**16)]
OddWidth = Annotated[int, Range(1, 2**16, parity="odd")]
Share = Annotated[float, Range(0, 1)]


@lru_cache
def kinds(settings: type) -> Mapping[str, Any]:
    """Return the annotations of a dataclass's fields."""
    hints = get_type_hints(settings, include_extras=True)
    return {field.name: hints[field.name] for field in fields(settings)}


def check_values(settings: Any, kind: type) -> None:
    """Check each field that the dataclass `kind` annotates, and make whole numbers `float` there.

    Raises:
        UserError: for a value of another type or outside its range; see `checked`.
    """
    for name, annotation in kinds(kind).items():
        value = getattr(settings, name)
        new = checked(name, value, annotation)
        if new is not value:
            # A macro model is frozen.
            object.__setattr__(settings, name, new)


def checked(name: str, value: Any, kind: Any) -> Any:
    """Return the value of a setting, a whole number as `float` if the setting is one.

    Booleans are no numbers, numbers are finite, and text is neither empty nor holds a NUL.

    Args:
        name: name of the setting, for messages.
        value: any object.
        kind: an annotation: None, bool, int, float, str, dict, `Literal`, unions of these, and
            these in `Annotated` with `Range` or `OneOf`. Other types are not checked.

    Raises:
        UserError: with the name, the value and what is allowed.
    """
    for member in _members(kind):
        plain, *limits = get_args(member) if get_origin(member) is Annotated else (member,)
        # A whole number is a valid float, unless the setting distinguishes the two.
        if plain is float and type(value) is int and int not in _types(kind):
            try:
                value = float(value)
            except OverflowError:
                value = math.inf if value > 0 else -math.inf
        if not _is(value, plain):
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name} must be a finite number, not {value}")
        if isinstance(value, str) and (not value or "\0" in value):
            problem = "text with a NUL character" if value else "empty text"
            raise UserError(f"{name} must not be {problem}")
        for limit in limits:
            limit.check(name, value)
        return value
    raise UserError(type_mistake(name, value, kind))


def type_mistake(name: str, value: Any, kind: Any) -> str:
    """Return the message about a value of a wrong type."""
    number = f"the {NUMBERS[type(value)]} " if type(value) in NUMBERS else ""
    *others, last = descriptions(kind)
    allowed = f"{', '.join(others)} or {last}" if others else last
    return f"{name} is {number}{quoted(value)}; it must be {allowed}"


def descriptions(kind: Any) -> list[str]:
    """Return what a type allows, in words; an empty list for a type without words."""
    words: list[str] = []
    for member in _members(kind):
        plain = get_args(member)[0] if get_origin(member) is Annotated else member
        if get_origin(plain) is Literal:
            words += [f"'{value}'" for value in get_args(plain)]
        elif (known := _DESCRIPTIONS.get(get_origin(plain) or plain)) is not None:
            words += known
        else:
            return []
    return words


_MISTAKE = re.compile(r'Parser key "(?P<key>[^"]+)": (?P<reason>.*)')
"""The message of jsonargparse about a flag's value."""


def flag_mistake(message: str, actions: Iterable[Action], prefix: str = "") -> str | None:
    """Return a readable message for one of jsonargparse about a flag's value.

    Args:
        message: its message, in one line.
        actions: the parser's arguments.
        prefix: what stands before the setting's name, such as '--'.

    Returns:
        The message, or None if its subject is another.
    """
    match = _MISTAKE.fullmatch(message)
    action = next((action for action in actions if match and action.dest == match["key"]), None)
    kind = getattr(action, "_typehint", None)
    if match is None or not descriptions(kind):
        return None
    name = f"{prefix}{match['key']}"
    if "integer string conversion" in match["reason"]:
        return f"{name} is a number of thousands of digits; it must be shorter"
    value = re.split("(?:Given|Got) value: ?", match["reason"])[-1]
    return type_mistake(name, None if value == "None" else value, kind)


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _types(kind: Any) -> set[Any]:
    """Return the types of a union's members, without their ranges and parameters."""
    plain = [get_args(member)[0] if get_origin(member) is Annotated else member for member in _members(kind)]
    return {get_origin(member) or member for member in plain}


def allows(kind: Any, plain: type) -> bool:
    """Whether a setting's values may be of the type `plain`."""
    return plain in _types(kind)


def _is(value: Any, plain: Any) -> bool:
    if get_origin(plain) is Literal:
        return isinstance(value, str) and value in get_args(plain)
    if plain in (int, float):
        return isinstance(value, plain) and not isinstance(value, bool)
    base = get_origin(plain) or plain
    return base not in _DESCRIPTIONS or isinstance(value, base)
