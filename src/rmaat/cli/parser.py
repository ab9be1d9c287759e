"""The command line's parser: jsonargparse, with the nearest name for a misspelt flag and `--flag` for `--flag true`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import UserError, did_you_mean
from rmaat.training.config import read_settings


class Parser(ArgumentParser):
    """A jsonargparse parser whose errors are `UserError`, to be printed in one place."""

    _fill_defaults = True

    def leave_out_defaults(self) -> None:
        """Give `parse_args` only what the command line and its config file hold."""
        self._fill_defaults = False

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as a `UserError`."""
        raise UserError(" ".join(str(message).split()))

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
                read_settings(Path(value or following))
            elif not value and following.startswith("--") and _is_flag(options[name]):
                filled.append("true")
        return super().parse_args(filled, **{"defaults": self._fill_defaults, **kwargs})


def _is_flag(action: Any) -> bool:
    return getattr(action, "_typehint", None) is bool
