"""A grid of training runs, tasks by models by seeds: how it is run, resumed and shown, and what comes of it."""
