"""The command line's parser: jsonargparse, with the nearest name for a misspelt flag and `--flag` for `--flag true`."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import UserError, did_you_mean
from rmaat.presets import yaml_word
from rmaat.training.config import read_settings


class Parser(ArgumentParser):
    """A jsonargparse parser whose errors are `UserError`, to be printed in one place."""

    _fill_defaults = True
    _read: tuple[Path, dict[str, Any]] | None = None
    """The config file on the command line, and its settings."""

    def leave_out_defaults(self) -> None:
        """Give `parse_args` only what the command line and its config file hold."""
        self._fill_defaults = False

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as a `UserError`; of a value of the wrong type, what was given, where, and what may be.

        Of an argument that is missing, what it is.
        """
        told = " ".join(str(message).split())
        if missing := _MISSING.fullmatch(told):
            keys = missing["keys"].split(", ")
            needed = [_described(action) for action in self._actions if action.dest in keys]
            raise UserError(f"{self.prog} needs {', and '.join(needed)}")
        wrong = _WRONG_TYPE.fullmatch(told)
        action = next((action for action in self._actions if wrong and action.dest == wrong["key"]), None)
        allowed = _in_words(getattr(action, "_typehint", None))
        if wrong is None or not allowed:
            raise UserError(told)
        self._refuse(wrong["key"], wrong["value"] or "", allowed)

    def _refuse(self, key: str, value: str, allowed: Sequence[str]) -> NoReturn:
        path, settings = self._read or (None, {})
        words = f"{', '.join(allowed[:-1])} or {allowed[-1]}" if len(allowed) > 1 else allowed[0]
        if key not in settings or " ".join(str(settings[key]).split()) != value:
            raise UserError(f"--{key} is '{value}'; it must be {words}")
        found = settings[key]
        kind = f"the {_NUMBERS[type(found)]} " if type(found) in _NUMBERS else ""
        quoted = (
            f", as in {key}: '{yaml_word(found)}'"
            if _TEXT in allowed and not isinstance(found, list | dict | None)
            else ""
        )
        raise UserError(f"'{path}': {key} is {kind}{yaml_word(found)}; it must be {words}{quoted}")

    def parse_args(self, args: Sequence[str] | None = None, **kwargs: Any) -> Namespace:
        """Parse after checking the names of flags and of the keys in a config file."""
        given = list(args or [])
        options = {option: action for action in self._actions for option in action.option_strings}
        filled: list[str] = []
        for place, word in enumerate(given):
            filled.append(word)
            if not word.startswith("--") or word == "--":
                continue
            name, _, value = word.partition("=")
            if name.split(".")[0] not in options and name not in options:
                raise UserError(f"{self.prog} has no option '{name}'; {did_you_mean(name, options)}")
            following = given[place + 1] if place + 1 < len(given) else "--"
            if name == "--config":
                named = value or ("" if following.startswith("-") else following)
                if not named:
                    raise UserError("--config needs the path of a YAML file, such as configs/listops.yaml")
                path = Path(named)
                self._read = path, read_settings(path)
            elif not value and following.startswith("--") and _is_flag(options[name]):
                filled.append("true")
        self._check_nulls()
        return super().parse_args(filled, **{"defaults": self._fill_defaults, **kwargs})

    def _check_nulls(self) -> None:
        # In a file jsonargparse takes null for any type.
        _, settings = self._read or (None, {})
        for action in self._actions:
            allowed = _in_words(getattr(action, "_typehint", None))
            if allowed and "null" not in allowed and settings.get(action.dest, "") is None:
                self._refuse(action.dest, "None", allowed)


_WRONG_TYPE = re.compile(r'Parser key "(?P<key>[^"]+)": .*(?:Given|Got) value:(?: (?P<value>.*))?')
_MISSING = re.compile("the following arguments are required: (?P<keys>.+)")
"""How jsonargparse tells of them."""

_TEXT = "text"
_NUMBERS = {int: "whole number", float: "number"}
_WORDS = {
    str: [_TEXT],
    **{kind: [f"a {name}"] for kind, name in _NUMBERS.items()},
    bool: ["true", "false"],
    NoneType: ["null"],
    dict: ["lines of 'key: value'"],
}


def _in_words(kind: Any) -> list[str]:
    """What a setting of that type may be, for people; nothing for a type that has no words."""
    known = _WORDS.get(get_origin(kind) or kind)
    if known is not None:
        return known
    if get_origin(kind) is Literal:
        return [f"'{value}'" for value in get_args(kind)]
    members = [_in_words(member) for member in get_args(kind)]
    return [word for words in members for word in words] if all(members) else []


def _described(action: Any) -> str:
    """An argument that must be given, and what it is or may be."""
    if action.option_strings:
        return f"{action.option_strings[-1]}: {action.help}"
    if action.choices is not None:
        return f"one of: {', '.join(action.choices)}"
    return f"its {action.dest}, {action.help}"


def _is_flag(action: Any) -> bool:
    return getattr(action, "_typehint", None) is bool
