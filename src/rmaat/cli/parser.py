"""Parser of the command line, based on jsonargparse.

It suggests the nearest name for a misspelt flag, and accepts `--flag` for `--flag true`.
"""

import re
from argparse import SUPPRESS
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import UserError, did_you_mean
from rmaat.presets import yaml_word
from rmaat.training.config import read_settings
from rmaat.values import allows, flag_mistake


class Parser(ArgumentParser):
    """A jsonargparse parser that raises `UserError`, which `rmaat.cli.main` prints."""

    _fill_defaults = True
    _sections: dict[str, Sequence[str]] = {}  # noqa: RUF012 - replaced, never changed

    def show_sections(self, sections: Mapping[str, Sequence[str]]) -> None:
        """List the flags of the help under headings.

        Args:
            sections: headings and the names of their flags. Flags without heading come first.
        """
        self._sections = dict(sections)

    def format_help(self) -> str:
        """Return the help, with one line per flag: the first sentence of its description."""
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
        """Let `parse_args` return only settings of the command line and of its config file."""
        self._fill_defaults = False

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a `UserError` with a message for users.

        For a value of the wrong type, it names the flag, the value and the allowed values. For a
        missing argument, it describes the argument. Otherwise it is jsonargparse's message.
        """
        line = " ".join(str(message).split())
        if missing := _MISSING.fullmatch(line):
            keys = missing["keys"].split(", ")
            descriptions = [_description(action) for action in self._actions if action.dest in keys]
            raise UserError(f"{self.prog} needs {', and '.join(descriptions)}")
        if choice := _CHOICE.fullmatch(line):
            known = next(action.choices for action in self._actions if action.dest == choice["name"])
            raise UserError(f"{self.prog} has no '{choice['value']}'; {did_you_mean(choice['value'], known)}")
        raise UserError(flag_mistake(line, self._actions, "--") or line)

    def parse_args(self, args: Sequence[str] | None = None, **kwargs: Any) -> Namespace:
        """Parse the words after checking the names of their flags.

        Returns:
            The settings. `config_settings` holds those of the --config file, if there is one.

        Raises:
            UserError: for an unknown flag, a wrong value and a missing argument.
        """
        words = list(args or [])
        path: Path | None = None
        options = {option: action for action in self._actions for option in action.option_strings}
        # The words, with "true" after each boolean flag without value.
        completed: list[str] = []
        for place, word in enumerate(words):
            completed.append(word)
            if not word.startswith("--") or word == "--":
                continue
            name, _, value = word.partition("=")
            # Only the entries of a dictionary have dotted names.
            whole = options.get(name.split(".")[0])
            if name not in options and not (whole and _allows(whole, dict)):
                raise UserError(f"{self.prog} has no option '{name}'; {did_you_mean(name, options)}")
            following = words[place + 1] if place + 1 < len(words) else "--"
            if name == "--config":
                file_name = value or ("" if following.startswith("-") else following)
                if path is not None:
                    raise UserError("--config is given twice; give one file")
                if not file_name:
                    raise UserError("--config needs the path of a YAML file, such as the run.yaml of a run")
                path = Path(file_name)
            elif not value and following.startswith("--") and name in options and _allows(options[name], bool):
                completed.append("true")
        try:
            parsed = super().parse_args(completed, **{"defaults": self._fill_defaults, **kwargs})
        except (OverflowError, RecursionError) as error:
            # jsonargparse converts 1 with 400 zeros to `float`, and reads a thousand brackets.
            raise UserError(f"{max(completed, key=len)} cannot be read: {error}") from error
        if path is not None:
            parsed["config_settings"] = read_settings(path)
        return parsed


HELP_COLUMN = 32
"""Column at which the descriptions of flags begin."""

SENTENCE_END = re.compile(r"(?<=[^\s.])\.(?:\s|$)")
"""A full stop at the end of a word, but not the dots of an ellipsis."""


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
"""jsonargparse's message about missing arguments."""

_CHOICE = re.compile("argument (?P<name>[^:]+): invalid choice: '(?P<value>.*)' \\(choose from .*\\)")
"""jsonargparse's message about a word that is not among an argument's choices."""


def _description(action: Any) -> str:
    """Return the name of a required argument with its help or its choices."""
    if action.option_strings:
        return f"{action.option_strings[-1]}: {action.help}"
    if action.choices is not None:
        return f"one of: {', '.join(action.choices)}"
    return f"its {action.dest}, {action.help}"


def _allows(action: Any, kind: type) -> bool:
    """Whether the action's value may be of a type."""
    return allows(getattr(action, "_typehint", None), kind)
