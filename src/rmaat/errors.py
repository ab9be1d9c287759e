"""The errors that the command line prints in one line, without a traceback."""

import difflib
import re
import reprlib
from collections.abc import Iterable

LONGEST_VALUE = 200
"""Characters of a user's value that a message shows; the middle of a longer one is left out."""

LONGEST_MESSAGE = 600
"""Characters of a message. Values that no quotes mark, or with quotes inside, may reach it."""

_LONG_VALUE = re.compile(rf"\S{{{LONGEST_VALUE + 1},}}|'[^']{{{LONGEST_VALUE + 1},}}'")


def shortened(text: str, limit: int = LONGEST_VALUE) -> str:
    """Return the text, or its beginning and end around an ellipsis if it is longer than `limit`."""
    half = (limit - 5) // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"


def printable(text: str) -> str:
    r"""Return the text with escapes such as \x1b for characters that a terminal does not show.

    These are control characters, line breaks, invisible and bidirectional marks, and the bytes of
    file names that are not UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def quoted(value: object) -> str:
    """Return a value as a message shows it: the words of YAML, text in quotes, 200 characters."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str):
        return f"'{shortened(printable(value[:LONGEST_MESSAGE]))}'"
    if isinstance(value, int) and value.bit_length() > LONGEST_MESSAGE:
        # Python refuses to write whole numbers of thousands of digits.
        return f"a whole number of {value.bit_length():,} bits"
    return shortened(printable(reprlib.repr(value)))


def one_line(message: str) -> str:
    """Return a message without unprintable characters, its long values and itself shortened."""
    # Escapes make values longer, so shorten them again. Megabytes of escapes would be dropped.
    text = printable(shortened(_with_short_values(message), 20 * LONGEST_MESSAGE))
    return shortened(_with_short_values(text), LONGEST_MESSAGE)


def _with_short_values(text: str) -> str:
    return _LONG_VALUE.sub(lambda match: shortened(match[0]), text)


class UserError(ValueError):
    """A mistake in the user's input: a file, a key, a value.

    Its message is one line that names the mistake, its place and the remedy; see `one_line`. In
    Python it is a `ValueError`. The command line prints the message and exits with status 2.
    """

    def __init__(self, message: object) -> None:
        super().__init__(one_line(str(message)))


class TrainingDivergedError(RuntimeError):
    """A loss or gradient that is not finite; the message names the step and the tensor."""


class CellsFailedError(RuntimeError):
    """Cells of a grid that failed; the message gives their number and the remedy."""


ERROR_PREFIX = "rmaat: error: "
DIVERGENCE_PREFIX = "rmaat: training stopped: "
"""The beginnings of the command line's messages on standard error."""

LONGEST_LISTING = 20
"""If there are more known names than this, a message lists the nearest or the first ones only."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a clause with the nearest known word, and with all known words if they are few.

    Without a near word it lists the known words.

    >>> did_you_mean("astra", ["astro", "softmax"])
    "did you mean 'astro'? known: astro, softmax"
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    rest = len(names) - LONGEST_LISTING
    more = f" and {rest} more" if rest > 0 else ""
    listing = f"known: {', '.join(names[:LONGEST_LISTING])}{more}"
    if not near:
        return listing
    question = f"did you mean '{near[0]}'?"
    return question if rest > 0 else f"{question} {listing}"
