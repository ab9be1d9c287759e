"""`python -m rmaat.grid.child PID VERB ...`: the command line, ended if its parent PID dies."""

import sys

from rmaat.machine.processes import end_with_parent

if __name__ == "__main__":
    parent_pid, *words = sys.argv[1:]
    end_with_parent(int(parent_pid))
    from rmaat.cli.main import main

    # A run records this as its command.
    sys.argv = ["rmaat", *words]
    sys.exit(main(words))
