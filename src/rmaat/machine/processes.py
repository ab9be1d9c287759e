"""Processes: one that ends with its parent, and a fresh one for a single call."""

import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

CHECK_SECONDS = 0.5


class OutOfMemoryError(RuntimeError):
    """A call needed more memory than there was, or its process was killed, mostly for that."""


def end_with_parent(parent_pid: int) -> None:
    """End this process with status 1 as soon as its parent is not `parent_pid`.

    A parent that is killed outright cannot end its children. They would go on writing into folders
    that its successor uses. A thread checks twice a second.
    """

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the function's result from a new interpreter, which ends with this call.

    What the function prints goes to standard error.

    Raises:
        OutOfMemoryError: if the process ended without a whole answer.
        Exception: what the function raised; a `RuntimeError` with its name and text if that, or the
            result, cannot be pickled.
    """
    command = [sys.executable, "-m", __name__, str(os.getpid())]
    call = pickle.dumps((function, arguments))
    # A new session: Ctrl-C is for this process alone, and `run` then kills the other.
    done = subprocess.run(command, input=call, stdout=subprocess.PIPE, start_new_session=True)
    if done.returncode < 0:
        raise OutOfMemoryError("its process was killed, most likely for want of memory")
    if done.returncode > 0:
        raise OutOfMemoryError(f"its process ended with status {done.returncode} and no answer")
    result, failure = pickle.loads(done.stdout)
    if failure is not None:
        raise failure
    return result


def _answer(call: bytes) -> bytes:
    """Return the pickled pair of a call's result and None, or of None and its exception."""
    try:
        function, arguments = pickle.loads(call)
        return pickle.dumps((function(*arguments), None))
    except Exception as failure:
        failure.add_note(traceback.format_exc())
        try:
            answer = pickle.dumps((None, failure))
            # Some exceptions can be pickled and not be read again.
            pickle.loads(answer)
        except Exception:
            substitute = RuntimeError(f"{type(failure).__name__}: {failure}")
            answer = pickle.dumps((None, substitute))
        return answer


def _main() -> None:
    end_with_parent(int(sys.argv[1]))
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        answers.write(_answer(sys.stdin.buffer.read()))


if __name__ == "__main__":
    _main()
