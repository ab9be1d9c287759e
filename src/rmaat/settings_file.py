"""Readers of settings as YAML, for settings of any name."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rmaat.errors import UserError, quoted

LARGEST_FILE = 2**20
"""Bytes of the largest file of settings; a macro model's positions are the longest setting."""


class _Loader(yaml.SafeLoader):
    """A safe loader that reads 2e-3 as a number, as YAML 1.2 does; PyYAML's own reads it as text.

    It refuses repeated keys, of which PyYAML would take the last. It also refuses aliases: a few
    lines of them make objects too large to print.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node; raise `ComposerError` for an alias."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                problem="write the value instead of an alias", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the entries of a mapping; raise `ConstructorError` for a repeated key."""
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    problem = f"the key {quoted(key.value)} is there twice"
                    raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
                keys.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """A safe dumper that quotes the text '2e-3', because the loader would read a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings as YAML that `parse_settings` reads as the same values."""
    return yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False)


def read_settings_file(path: Path) -> dict[str, Any]:
    """Return the keys and values of a YAML file; see `parse_settings`.

    Raises:
        UserError: if the file cannot be read, is too large, or is not YAML in UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot read the run config {quoted(str(path))}: {reason}") from error
    if len(content) > LARGEST_FILE:
        raise UserError(f"'{path}' has more than {LARGEST_FILE:,} bytes, too many for a run config")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 text: {error.reason} at byte {error.start}") from error
    return parse_settings(text, f"'{path}'")


def parse_settings(text: str, where: str) -> dict[str, Any]:
    """Return the keys and values of a YAML text.

    Args:
        text: lines of 'key: value'.
        where: name of the file, for messages.

    Raises:
        UserError: if the text is not YAML or not lines of 'key: value'. It names `where`.
    """
    try:
        settings = yaml.load(text, _Loader)
    except RecursionError as error:
        raise UserError(f"{where} has too many nested brackets") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(
            f"{where}{line} is not YAML: {getattr(error, 'problem', None) or str(error).splitlines()[0]}"
        ) from error
    except (ValueError, OverflowError) as error:
        # A number of thousands of digits, or a date such as 2020-99-99.
        raise UserError(f"{where} holds a value that cannot be read: {error}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError(f"{where} must be lines of 'key: value'")
    return settings
