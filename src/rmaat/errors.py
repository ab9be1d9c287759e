"""The one exception type for mistakes of the user, as opposed to bugs of the program."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: a file, a key, a value.

    Its message is one line that names the thing, the place and the remedy. In Python it is a `ValueError`; the command line
    prints the message and exits with status 2, without a traceback.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A clause naming the nearest known word and all known words, for the end of an error message.

    >>> did_you_mean("astra", ["astro", "softmax"])
    "did you mean 'astro'? known: astro, softmax"
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    listing = f"known: {', '.join(names)}"
    return f"did you mean '{near[0]}'? {listing}" if near else listing
