"""`python -m rmaat`, the same as `rmaat`."""

from rmaat.cli.main import entry_point

entry_point()
