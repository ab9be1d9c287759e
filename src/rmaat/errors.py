"""What the command line tells in one line: mistakes of the user, and a training that diverged."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: a file, a key, a value.

    Its message is one line that names the thing, the place and the remedy. In Python it is a `ValueError`; the command line
    prints the message and exits with status 2, without a traceback.
    """


class TrainingDivergedError(RuntimeError):
    """Loss or a gradient is no longer finite; the message says at which step and in which tensor."""


class CellsFailedError(RuntimeError):
    """Cells of a grid could not be finished; the message says how many and what to do."""


MISTAKE = "rmaat: error: "
DIVERGENCE = "rmaat: training stopped: "
"""How the command line begins its line on standard error."""


LONGEST_LISTING = 20


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A clause naming the nearest known word and, where they are few or none is near, all known words.

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
