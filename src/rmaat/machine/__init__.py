"""This computer: memory, files, locks, and where a figure was made. Knows nothing of models."""
