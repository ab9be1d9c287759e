"""Compare methods side by side, on the same width, depth, tokens and batch."""

VERBS = {
    "memory": "peak memory and time of a training step against the length of the sequence",
    "speed": "time of a training step, and its share of the machine's matrix-product rate",
    "accuracy": "train a grid of tasks, models and seeds; the same command again goes on where it was left",
    "recall": "train models on few segments, test what their memory keeps over many",
    "table": "tables and figures of a grid, beside the published figures",
}
"""Each comparison's line in `rmaat compare --help`; its module in this package is of the same form as a verb's."""
