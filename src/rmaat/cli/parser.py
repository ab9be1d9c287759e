"""The command line's parser: jsonargparse, with the nearest name for a misspelt flag and `--flag` for `--flag true`."""

import re
from argparse import SUPPRESS
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import UserError, did_you_mean
from rmaat.presets import yaml_word
from rmaat.training.config import read_settings
from rmaat.wording import NUMBERS, TEXT, WrongValue, in_words, wrong_value


class Parser(ArgumentParser):
    """A jsonargparse parser whose errors are `UserError`, to be printed in one place."""

    _fill_defaults = True
    _sections: dict[str, Sequence[str]] = {}  # noqa: RUF012 - replaced, never changed
    _file: tuple[Path, dict[str, Any]] | None = None
    """The config file that is being parsed, and its settings."""

    def show_sections(self, sections: Mapping[str, Sequence[str]]) -> None:
        """List the flags of the help under headings.

        Args:
            sections: headings and the names of their flags; flags in none come first.
        """
        self._sections = dict(sections)

    def format_help(self) -> str:
        """Return the help: a line a flag, with the first sentence of its description."""
        positional = [action for action in self._actions if not action.option_strings]
        flags = {action.dest: action for action in self._actions if action.option_strings and action.help != SUPPRESS}
        listed = {name for names in self._sections.values() for name in names}
        sections = {
            "arguments": [(action.dest, action) for action in positional],
            "options": [(f"--{name}", action) for name, action in flags.items() if name not in listed],
            **{title: [(f"--{name}", flags[name]) for name in names] for title, names in self._sections.items()},
        }
        words = "".join(f" {action.dest}" for action in positional)
        lines = [f"usage: {self.prog}{words} [--flag value ...]", "", str(self.description or "").strip()]
        for title, rows in sections.items():
            if rows:
                lines += ["", f"{title}:", *(_help_line(name, action) for name, action in rows)]
        return "\n".join(lines) + "\n"

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
        wrong = wrong_value(told, self._actions)
        if wrong is None:
            raise UserError(told)
        self._refuse(wrong)

    def _refuse(self, wrong: WrongValue) -> NoReturn:
        key = wrong.key
        if self._file is None:
            raise UserError(f"--{wrong}")
        path, settings = self._file
        found = settings[key]
        kind = f"the {NUMBERS[type(found)]} " if type(found) in NUMBERS else ""
        quoted = (
            f", as in {key}: '{yaml_word(found)}'"
            if TEXT in wrong.allowed and not isinstance(found, list | dict | None)
            else ""
        )
        raise UserError(f"'{path}': {key} is {kind}{yaml_word(found)}; {wrong.must_be}{quoted}")

    def parse_args(self, args: Sequence[str] | None = None, **kwargs: Any) -> Namespace:
        """Parse after checking the names of flags.

        The settings of the file that --config names are the result's `config_settings`.
        """
        given = list(args or [])
        path: Path | None = None
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
                    raise UserError("--config needs the path of a YAML file, such as the run.yaml of a run")
                path = Path(named)
            elif not value and following.startswith("--") and _is_flag(options[name]):
                filled.append("true")
        parsed = super().parse_args(filled, **{"defaults": self._fill_defaults, **kwargs})
        if path is not None:
            parsed["config_settings"] = self._parse_file(path)
        return parsed

    def _parse_file(self, path: Path) -> dict[str, Any]:
        """Return the settings of a config file, each of its type."""
        settings = read_settings(path)
        self._file = path, settings
        for action in self._actions:
            # jsonargparse takes null for any type.
            allowed = in_words(action)
            if allowed and "null" not in allowed and settings.get(action.dest, "") is None:
                self._refuse(WrongValue(action.dest, "None", allowed))
        typed = self.parse_string(yaml.safe_dump(settings), defaults=False) if settings else Namespace()
        self._file = None
        return {name: typed[name] for name in settings}


HELP_COLUMN = 32
"""Where the descriptions of flags begin."""


SENTENCE_END = re.compile(r"(?<=[^\s.])\.(?:\s|$)")


def _help_line(name: str, action: Any) -> str:
    """Return a flag, the first sentence of its description, and its default."""
    description = " ".join(str(action.help or "").split())
    sentence = SENTENCE_END.split(description, maxsplit=1)[0]
    default = getattr(action, "default", None)
    if default not in (None, SUPPRESS) and "default" not in description:
        sentence += f" ({yaml_word(default)})"
    if action.choices and not action.option_strings:
        sentence += f": {', '.join(map(str, action.choices))}"
    return f"  {name:<{HELP_COLUMN - 3}} {sentence}"


_MISSING = re.compile("the following arguments are required: (?P<keys>.+)")
"""How jsonargparse tells of them."""


def _described(action: Any) -> str:
    """An argument that must be given, and what it is or may be."""
    if action.option_strings:
        return f"{action.option_strings[-1]}: {action.help}"
    if action.choices is not None:
        return f"one of: {', '.join(action.choices)}"
    return f"its {action.dest}, {action.help}"


def _is_flag(action: Any) -> bool:
    return getattr(action, "_typehint", None) is bool
