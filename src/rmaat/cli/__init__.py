"""The command line: one module per verb, which turns flags into calls.

Heavy packages are imported when a verb runs, so that `--help` answers at once.
"""
