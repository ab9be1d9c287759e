"""A parser of settings as YAML text, for settings of any name."""

import re
from typing import Any

import yaml

from rmaat.errors import UserError


class _Loader(yaml.SafeLoader):
    """A safe loader that reads 2e-3 as a number, as YAML 1.2 does.

    PyYAML's own loader reads it as text.
    """


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


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
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError(f"{where} must be lines of 'key: value'")
    return settings
