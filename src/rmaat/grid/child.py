"""`python -m rmaat.grid.child PID VERB ...`: the command line, ended if its parent PID dies.

A grid that is killed outright cannot end its cells. They would go on writing into folders that the
next grid resumes.
"""

import os
import sys
import threading
import time

CHECK_SECONDS = 0.5


def end_with(parent: int) -> None:
    """Watch the parent from a thread; exit at once if this process has another parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    parent, *words = sys.argv[1:]
    end_with(int(parent))
    from rmaat.cli.main import main

    sys.argv = ["rmaat", *words]
    sys.exit(main(words))
