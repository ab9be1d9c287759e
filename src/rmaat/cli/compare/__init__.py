"""Compare models or methods of training: accuracy, recall, memory and time."""

VERBS = {
    "memory": "peak memory and time of a training step against the sequence length",
    "speed": "time of a training step, and its share of the machine's matrix-product rate",
    "accuracy": "train a grid of tasks, models and seeds; the same command resumes it",
    "recall": "train models on few segments, and test their memory on many",
    "context": "caches of a fixed budget and causal models on long texts: retrieval, prediction, memory",
    "table": "tables and figures of a grid, beside the published figures",
}
"""Line of each comparison in `rmaat compare --help`. Its module has the same form as a verb's."""
