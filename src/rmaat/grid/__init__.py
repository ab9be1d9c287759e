"""Grids of training runs: tasks by models by seeds, each cell one process of `rmaat train`.

The folder is the database: a cell is finished if its folder holds metrics.json.
"""
