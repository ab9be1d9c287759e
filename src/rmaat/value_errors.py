"""Readable errors for setting values that jsonargparse refused."""

import re
from argparse import Action
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

_WRONG_TYPE = re.compile(r'Parser key "(?P<key>[^"]+)": .*(?:Given|Got) value:(?: (?P<value>.*))?')
"""The message of jsonargparse about a value of the wrong type."""

TEXT = "text"
NUMBERS = {int: "whole number", float: "number"}
_DESCRIPTIONS = {
    str: [TEXT],
    **{kind: [f"a {name}"] for kind, name in NUMBERS.items()},
    bool: ["true", "false"],
    NoneType: ["null"],
    dict: ["lines of 'key: value'"],
}


@dataclass(frozen=True)
class WrongValue:
    """A value of the wrong type.

    Attributes:
        key: name of the setting.
        value: the refused value, as text.
        allowed: descriptions of the allowed values.
    """

    key: str
    value: str
    allowed: Sequence[str]

    @property
    def must_be(self) -> str:
        """The allowed values, as the end of a sentence."""
        *others, last = self.allowed
        return f"it must be {', '.join(others)} or {last}" if others else f"it must be {last}"

    def __str__(self) -> str:
        return f"{self.key} is '{self.value}'; {self.must_be}"


def wrong_value(message: str, actions: Iterable[Action]) -> WrongValue | None:
    """Return the refused value that a message of jsonargparse describes.

    Args:
        message: the message, in one line.
        actions: the parser's arguments.

    Returns:
        The value, or None if the message has another subject.
    """
    match = _WRONG_TYPE.fullmatch(message)
    action = next((action for action in actions if match and action.dest == match["key"]), None)
    allowed = allowed_values(action)
    return WrongValue(match["key"], match["value"] or "", allowed) if match and allowed else None


def allowed_values(action: Action | None) -> list[str]:
    """Return descriptions of an argument's allowed values; none for a type without descriptions."""
    return _descriptions(getattr(action, "_typehint", None))


def _descriptions(kind: Any) -> list[str]:
    known = _DESCRIPTIONS.get(get_origin(kind) or kind)
    if known is not None:
        return known
    if get_origin(kind) is Literal:
        return [f"'{value}'" for value in get_args(kind)]
    members = [_descriptions(member) for member in get_args(kind)]
    return [text for texts in members for text in texts] if all(members) else []
