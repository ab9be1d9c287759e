"""`python -m rmaat`, the same as `rmaat`."""

import sys

from rmaat.cli.main import entry_point

# The path of this file, which Python puts there, would be recorded as a command that nobody can run.
sys.argv[0] = "rmaat"
entry_point()
