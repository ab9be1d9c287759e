"""Compare methods side by side, on the same width, depth, tokens and batch."""

VERBS = {
    "memory": "peak memory and time of a training step against the length of the sequence",
    "speed": "time of a training step, and its share of the machine's matrix-product rate",
}
"""Each comparison's line in `rmaat compare --help`; its module in this package is of the same form as a verb's."""
