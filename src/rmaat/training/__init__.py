"""From a run config to a finished run: training, its checkpoints, its result files."""
