"""What the value of a typed setting may be, in words for people, where jsonargparse has refused one."""

import re
from argparse import Action
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

_WRONG_TYPE = re.compile(r'Parser key "(?P<key>[^"]+)": .*(?:Given|Got) value:(?: (?P<value>.*))?')
"""How jsonargparse tells of one."""

TEXT = "text"
NUMBERS = {int: "whole number", float: "number"}
_WORDS = {
    str: [TEXT],
    **{kind: [f"a {name}"] for kind, name in NUMBERS.items()},
    bool: ["true", "false"],
    NoneType: ["null"],
    dict: ["lines of 'key: value'"],
}


@dataclass(frozen=True)
class WrongValue:
    """A value of the wrong type: of which setting, as it was given, and what may be."""

    key: str
    value: str
    allowed: Sequence[str]

    @property
    def must_be(self) -> str:
        """What it must be, as the end of a sentence."""
        *others, last = self.allowed
        return f"it must be {', '.join(others)} or {last}" if others else f"it must be {last}"

    def __str__(self) -> str:
        return f"{self.key} is '{self.value}'; {self.must_be}"


def wrong_value(message: str, actions: Iterable[Action]) -> WrongValue | None:
    """The value that jsonargparse's message, in one line, is about; None where it is about something else."""
    wrong = _WRONG_TYPE.fullmatch(message)
    action = next((action for action in actions if wrong and action.dest == wrong["key"]), None)
    allowed = in_words(action)
    return WrongValue(wrong["key"], wrong["value"] or "", allowed) if wrong and allowed else None


def in_words(action: Action | None) -> list[str]:
    """What an argument may be; nothing for a type that has no words."""
    return _in_words(getattr(action, "_typehint", None))


def _in_words(kind: Any) -> list[str]:
    known = _WORDS.get(get_origin(kind) or kind)
    if known is not None:
        return known
    if get_origin(kind) is Literal:
        return [f"'{value}'" for value in get_args(kind)]
    members = [_in_words(member) for member in get_args(kind)]
    return [word for words in members for word in words] if all(members) else []
