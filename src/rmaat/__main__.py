"""The entry point of `python -m rmaat`, which does the same as `rmaat`."""

import sys

from rmaat.cli.main import entry_point

# Runs record their command. Python sets argv[0] to the path of this file, which is no command.
sys.argv[0] = "rmaat"
entry_point()
