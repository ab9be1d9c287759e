"""The errors that the command line prints in one line, without a traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the user's input: a file, a key, a value.

    Its message is one line that names the mistake, its place and the remedy. In Python it is a
    `ValueError`. The command line prints the message and exits with status 2.
    """


class TrainingDivergedError(RuntimeError):
    """A loss or gradient that is not finite; the message names the step and the tensor."""


class CellsFailedError(RuntimeError):
    """Cells of a grid that failed; the message gives their number and the remedy."""


ERROR_PREFIX = "rmaat: error: "
DIVERGENCE_PREFIX = "rmaat: training stopped: "
"""The beginnings of the command line's messages on standard error."""

LONGEST_LISTING = 20
"""If there are more known names than this, a message with a near name does not list them."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a clause with the nearest known word, and with all known words if they are few.

    Without a near word it lists all known words.

    >>> did_you_mean("astra", ["astro", "softmax"])
    "did you mean 'astro'? known: astro, softmax"
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    listing = f"known: {', '.join(names)}"
    if not near:
        return listing
    question = f"did you mean '{near[0]}'?"
    return question if len(names) > LONGEST_LISTING else f"{question} {listing}"
