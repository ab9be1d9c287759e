"""Accuracy over grids of runs, and how far a trained model's memory reaches."""
